/** What each operation of the table does. A handler returns the reply document or throws. */
import type { IncomingMessage } from 'node:http';
import { openApiDocument } from '../../protocol/control/openapi.js';
import type { OperationId } from '../../protocol/control/operations.js';
import type { VmView } from '../../protocol/control/schema.js';
import { readChange, readDaemonChange, readInhibit, readPolicyChange } from './body.js';
import { RefusedError, type DaemonControl, type Fleet } from './fleet.js';
import { Problem } from './problem.js';
import type { Route } from './route.js';

const REFRESH_TIMEOUT_MS = 5000;
const NAMES_LISTED = 20;

export interface Call {
  readonly route: Route;
  readonly request: IncomingMessage;
  readonly fleet: Fleet;
  readonly version: string;
  readonly daemon: DaemonControl;
}

type Handler = (call: Call) => unknown;

/** Streams take over the response, so the server answers them itself. */
export const HANDLERS: Record<Exclude<OperationId, 'streamEvents'>, Handler> = {
  listVms: ({ fleet }) => fleet.list(),
  showVm: (call) => findVm(call),
  setTarget: async (call) => {
    // First, so that a path without a VM is 404 whatever the body is; and again, since the VM may go meanwhile.
    findVm(call);
    const change = await readChange(call.request);
    const { name } = findVm(call);
    if ('limits' in change) return call.fleet.setLimits(name, change.limits);
    if ('statsIntervalSeconds' in change) {
      return call.fleet.setStatsInterval(name, change.statsIntervalSeconds);
    }
    return call.fleet.setTarget(name, change);
  },
  showStats: async (call) => {
    const found = findVm(call);
    const vm = call.route.query.refresh
      ? await call.fleet.refreshStats(found.name, REFRESH_TIMEOUT_MS)
      : found;
    if (vm.stats !== null) return vm.stats;
    throw new RefusedError(
      vm.features.includes('VIRTIO_BALLOON_F_STATS_VQ')
        ? 'the guest has not sent statistics yet: try again with refresh'
        : 'the guest driver did not accept VIRTIO_BALLOON_F_STATS_VQ: load virtio_balloon in the guest',
    );
  },
  inhibit: async (call) => {
    findVm(call);
    const { reason } = await readInhibit(call.request);
    return call.fleet.setInhibited(findVm(call).name, reason ?? 'inhibited by the operator');
  },
  allow: (call) => call.fleet.setInhibited(findVm(call).name, null),
  showDaemon: ({ daemon }) => daemon.view(),
  changeDaemon: async ({ daemon, request }) => daemon.change(await readDaemonChange(request)),
  reload: ({ daemon }) => daemon.reload(),
  metrics: ({ fleet }) => fleet.metrics(),
  showPolicy: ({ fleet }) => fleet.policy(),
  changePolicy: async (call) => {
    const change = await readPolicyChange(call.request);
    if (change.vm !== undefined) findVm(call, change.vm);
    return call.fleet.changePolicy(change);
  },
  health: ({ version }) => ({ status: 'ok', version }),
  openApi: ({ version }) => openApiDocument(version),
};

/** Of the path, where no other name is given. Throws Problem 404. */
function findVm({ fleet, route }: Call, name = route.vm): VmView {
  const vm = fleet.find(name);
  if (vm !== undefined) return vm;
  const names = fleet.list().map(({ name }) => name);
  const more = names.length > NAMES_LISTED ? `, and ${names.length - NAMES_LISTED} more` : '';
  const known =
    names.length === 0
      ? 'connect one first (balloonctl qemu-args)'
      : `choose one of ${names.slice(0, NAMES_LISTED).join(', ')}${more}`;
  throw new Problem(404, `no VM is called ${JSON.stringify(name)}: ${known}`);
}
