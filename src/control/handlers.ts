/** What each operation of the table does. A handler returns the reply document or throws. */
import { refusal, type NextStep } from '../../protocol/control/refusal.js';
import type { IncomingMessage } from 'node:http';
import { openApiDocument } from '../../protocol/control/openapi.js';
import type { OperationId } from '../../protocol/control/operations.js';
import type { VmChange, VmView } from '../../protocol/control/schema.js';
import { readAdoptChange, readChange, readDaemonChange, readInhibit, readPolicyChange } from './body.js';
import { checkMatch } from './etag.js';
import { RefusedError, type DaemonControl, type Fleet } from './fleet.js';
import { Problem } from './problem.js';
import type { Route } from './route.js';

const REFRESH_TIMEOUT_MS = 5000;
const NAMES_LISTED = 20;

interface Call {
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
  showVm: (call) => viewOf(call),
  setTarget: async (call) => {
    // First, so that a path without a VM is 404 whatever the body is; and again, since the VM may go meanwhile.
    nameOf(call);
    const change = await readChange(call.request);
    const name = nameOf(call);
    checkMatch(call.request, () => viewOf(call));
    if (call.route.query['dry-run'] === true) return dryTarget(call, change);
    if ('limits' in change) return call.fleet.setLimits(name, change.limits);
    if ('statsIntervalSeconds' in change) {
      return call.fleet.setStatsInterval(name, change.statsIntervalSeconds);
    }
    return call.fleet.setTarget(name, change);
  },
  showStats: async (call) => {
    const vm = call.route.query.refresh
      ? await call.fleet.refreshStats(nameOf(call), REFRESH_TIMEOUT_MS)
      : viewOf(call);
    if (vm.stats !== null) return vm.stats;
    throw new RefusedError(
      vm.features.includes('VIRTIO_BALLOON_F_STATS_VQ')
        ? refusal('the guest has not sent statistics yet', 'try again with refresh')
        : refusal(
            'the guest driver did not accept VIRTIO_BALLOON_F_STATS_VQ',
            'load virtio_balloon in the guest',
          ),
    );
  },
  inhibit: async (call) => {
    nameOf(call);
    const { reason } = await readInhibit(call.request);
    return call.fleet.setInhibited(nameOf(call), reason ?? 'inhibited by the operator');
  },
  allow: (call) => call.fleet.setInhibited(nameOf(call), null),
  showDaemon: ({ daemon }) => daemon.view(),
  changeDaemon: async ({ daemon, request }) => daemon.change(await readDaemonChange(request)),
  reload: ({ daemon, route }) => daemon.reload(route.query['dry-run'] === true),
  metrics: ({ fleet }) => fleet.metrics(),
  showPolicy: ({ fleet }) => fleet.policy(),
  changePolicy: async (call) => {
    const change = await readPolicyChange(call.request);
    if ('vm' in change) nameOf(call, change.vm);
    return call.fleet.changePolicy(change);
  },
  advisePolicy: ({ fleet }) => fleet.advice(),
  listAdopted: ({ fleet }) => fleet.adopted(),
  changeAdopted: async ({ fleet, request }) => fleet.changeAdopted(await readAdoptChange(request)),
  listOrders: ({ fleet }) => fleet.orders(),
  takeBackOrders: (call) => {
    const { vm } = call.route;
    if (call.fleet.ordersOf(vm).orders.length > 0) return call.fleet.takeBackOrders(vm);
    throw new Problem(
      404,
      refusal(`no order holds for a VM ${JSON.stringify(vm)}`, 'see balloonctl orders for all that hold'),
    );
  },
  health: ({ version }) => ({ status: 'ok', version }),
  openApi: ({ version }) => openApiDocument(version),
};

/** The VM with the target that it would have. Throws Problem 400 for a change of another kind. */
function dryTarget(call: Call, change: VmChange): VmView {
  if ('limits' in change || 'statsIntervalSeconds' in change)
    throw new Problem(400, refusal('dry-run is for targets', 'send a target, or leave dry-run out'));
  return call.fleet.tryTarget(nameOf(call), change);
}

/** The whole VM of the path. Throws Problem 404. */
function viewOf(call: Call): VmView {
  const vm = call.fleet.find(call.route.vm);
  if (vm !== undefined) return vm;
  throw noVm(call.route.vm, call.fleet);
}

/** The name of the VM of the path, or of another, where there is such a VM. Throws Problem 404. */
function nameOf({ fleet, route }: Call, name = route.vm): string {
  if (fleet.names().includes(name)) return name;
  throw noVm(name, fleet);
}

function noVm(name: string, fleet: Fleet): Problem {
  const { orders } = fleet.ordersOf(name);
  const released = orders.find(({ order }) => order === 'released');
  if (released !== undefined) {
    const step: NextStep = `run ${released.undo}`;
    return new Problem(404, refusal(`VM ${JSON.stringify(name)} was released by an operator`, step));
  }
  if (orders.length > 0) {
    const step = 'see balloonctl orders for those that wait for it';
    return new Problem(404, refusal(`VM ${JSON.stringify(name)} is not connected`, step));
  }
  const names = fleet.names();
  const more = names.length > NAMES_LISTED ? `, and ${names.length - NAMES_LISTED} more` : '';
  const known: NextStep =
    names.length === 0
      ? 'connect one first (balloonctl qemu-args)'
      : `choose one of ${names.slice(0, NAMES_LISTED).join(', ')}${more}`;
  return new Problem(404, refusal(`no VM is called ${JSON.stringify(name)}`, known));
}
