/** The requests by which the VMM shares guest memory, and takes it away. */
import type { RegionDescription } from '../../protocol/vhost-user/payloads.js';
import { FrontendError } from '../memory/errors.js';
import type { FdBag } from './fd-bag.js';
import type { RequestContext } from './requests.js';

export function setMemoryTable(session: RequestContext, regions: RegionDescription[], fds: FdBag): void {
  if (fds.count !== regions.length) {
    throw new FrontendError(`SET_MEM_TABLE with ${regions.length} regions and ${fds.count} fds`);
  }
  for (const region of regions) inspect(session, region);
  session.changeMemory(null, () => {
    session.memory.replace(
      regions,
      regions.map(() => fds.take()),
    );
  });
}

export function addRegion(session: RequestContext, region: RegionDescription, fds: FdBag): void {
  inspect(session, region);
  session.memory.add(region, fds.take());
  session.observer.memoryChanged(region.gpa);
}

export function removeRegion(session: RequestContext, region: RegionDescription): void {
  session.changeMemory(region.gpa, () => session.memory.remove(region));
}

function inspect(session: RequestContext, region: RegionDescription): void {
  const reason = session.observer.inspectRegion(region);
  if (reason !== null) throw new FrontendError(reason);
}
