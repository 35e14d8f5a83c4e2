import { formatSize } from '../../protocol/control/size.js';
import type { Action, Reason } from './action.js';
import type { PolicyConfig, StockKind, VmTable } from './inputs.js';
import { HIGH_STEPS, MAX_RUNG } from './state.js';

/** One sentence without its full stop: what is done to whom, and why. `names` has the VM of each row. */
export function describe(
  action: Action,
  names: readonly string[],
  vms: VmTable,
  { bands, stock }: Pick<PolicyConfig, 'bands' | 'stock'>,
): string {
  const who = (row: number): string => {
    const band = bands[vms.band[row] ?? 0]?.name ?? '?';
    return `${names[row] ?? '?'} (${band})`;
  };
  const { reason, row } = action;
  const why = because(reason, vms.ramBytes[row] ?? 0, who, stock);
  switch (action.kind) {
    case 'kill':
      return `killed ${who(row)}, as its band allows: ${why}`;
    case 'limit': {
      const { rung, highBytes, maxBytes } = action;
      if (highBytes === null) return `released ${who(row)} from force: ${why}`;
      const step =
        rung >= MAX_RUNG
          ? `memory.high ${formatSize(highBytes)}, memory.max ${formatSize(maxBytes ?? highBytes)}`
          : `memory.high ${formatSize(highBytes)}, step ${rung} of ${HIGH_STEPS}`;
      return `held ${who(row)} to ${step}: ${why}`;
    }
    case 'cache-limit':
      return `let the page cache balloon of ${who(row)} hold ${action.toBytes === 0 ? 'nothing' : `up to ${formatSize(action.toBytes)}`}: ${why}`;
    case 'target': {
      const bytes = formatSize(Math.abs(action.toBytes - action.fromBytes));
      if (action.toBytes > action.fromBytes) return `took ${bytes} from ${who(row)}: ${why}`;
      return `gave ${bytes} to ${who(row)}: ${why}`;
    }
  }
}

/** Whose memory it is that is available: the host's, that which VMs may have of it, or that of a pool. */
export function availableWords(stock: StockKind): string {
  if (typeof stock === 'object') return `available to VMs in ${poolWords(stock.poolPageBytes)}`;
  return stock === 'host' ? 'host available' : 'available to VMs';
}

/** The pool of pages of this size. */
export function poolWords(pageBytes: number): string {
  return `the pool of ${formatSize(pageBytes)} pages`;
}

function because(reason: Reason, ramBytes: number, who: (row: number) => string, stock: StockKind): string {
  const { hostAvailableBytes, hostTotalBytes, reserveBytes, stallPercent, counterpart } = reason;
  const { shedBytes } = reason;
  const available = `${availableWords(stock)} ${percent(hostAvailableBytes / hostTotalBytes)}`;
  const reserve = percent(reserveBytes / hostTotalBytes);
  const host =
    hostAvailableBytes < reserveBytes
      ? `${available} < reserve ${reserve}`
      : `${available}, reserve ${reserve}`;
  const shed = shedBytes > 0 ? `, ${formatSize(shedBytes)} given by itself` : '';
  const idle = `${percent(reason.idleBytes / ramBytes)} of its memory idle${shed}`;
  const stalls = stallPercent >= 1 ? `, stalled ${Math.round(stallPercent)} % of the time` : '';
  const keeper = typeof stock === 'object' ? 'pool' : 'host';
  const missing = `it owes ${formatSize(reason.missingBytes)}`;
  switch (reason.cause) {
    case 'host-short':
      return `${host}; ${idle}${stalls}`;
    case 'needed-elsewhere':
      return `${who(counterpart)} needs it; ${host}; ${idle}${stalls}`;
    case 'above-ceiling':
      return `it has more than its max`;
    case 'sizes-itself':
      return `${host}; its guest may give all of its memory but its min`;
    case 'makes-room':
      return `${host}; its guest may give as much as the host lacks${shedBytes > 0 ? `, beyond ${formatSize(shedBytes)} that are not on the host in any case` : ''}`;
    case 'keeps-cache':
      return `${host}, so the ${keeper} has room for its page cache`;
    case 'guest-short':
      return `its guest is short, ${idle}${stalls}; ${from(counterpart, who, keeper)}; ${host}`;
    case 'below-floor':
      return `it has less than its min; ${from(counterpart, who, keeper)}; ${host}`;
    case 'refund':
      return `${host}, so the ${keeper} has memory left over`;
    case 'not-yielding':
      return `${missing} and did not yield in its grace time; ${host}`;
    case 'yielded':
      return `it yielded`;
    case 'not-needed':
      return `nobody needs its memory any more; ${host}`;
    case 'withstood':
      return `${missing} and yielded to no step of force; other VMs have to yield`;
  }
}

function from(counterpart: number, who: (row: number) => string, keeper: string): string {
  return counterpart < 0
    ? `from memory that the ${keeper} has left over`
    : `most of it from ${who(counterpart)}`;
}

function percent(share: number): string {
  const value = share * 100;
  return `${value > 0 && value < 1 ? value.toFixed(1) : Math.round(value)} %`;
}
