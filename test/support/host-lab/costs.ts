// What moving memory takes of a host under KVM: processor time and sleeps of each thread, and exits of the guest.
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';

const KVM = '/sys/kernel/debug/kvm';
/** USER_HZ of Linux on every architecture that it counts for programs with. */
const TICK_MS = 10;
const STATS = ['exits', 'mmio_exits', 'io_exits', 'halt_exits', 'irq_injections', 'irq_window_exits'];

/** By a name: milliseconds and counts since the machine began. */
export type Costs = Readonly<Record<string, number>>;

function threadCosts(pid: number, nameOf: (thread: string) => string): Record<string, number> {
  const costs: Record<string, number> = {};
  const add = (name: string, value: number): void => void (costs[name] = (costs[name] ?? 0) + value);
  for (const task of readdirSync(`/proc/${pid}/task`)) {
    const folder = join(`/proc/${pid}/task`, task);
    const [, thread = '', rest = ''] = /\((.*)\) (.*)/.exec(readFileSync(`${folder}/stat`, 'latin1')) ?? [];
    const fields = rest.split(' ');
    const name = nameOf(thread);
    // Fields 14 and 15 of proc(5); the rest begins with field 3.
    add(`${name} user ms`, Number(fields[11]) * TICK_MS);
    add(`${name} system ms`, Number(fields[12]) * TICK_MS);
    const [, sleeps = '0'] =
      /^voluntary_ctxt_switches:\s*(\d+)/m.exec(readFileSync(`${folder}/status`, 'latin1')) ?? [];
    add(`${name} sleeps`, Number(sleeps));
  }
  return costs;
}

/** `daemonPid` is null where QEMU serves the balloon. Needs debugfs. */
export function costsNow(qemuPid: number, daemonPid: number | null): Costs {
  const costs = threadCosts(qemuPid, (thread) => (thread.startsWith('CPU ') ? 'vCPU' : 'QEMU'));
  for (const machine of readdirSync(KVM).filter((name) => name.startsWith(`${qemuPid}-`))) {
    for (const stat of STATS) {
      const text = readFileSync(join(KVM, machine, stat), 'latin1');
      costs[stat] = Number(text);
    }
  }
  return daemonPid === null ? costs : { ...costs, ...threadCosts(daemonPid, () => 'daemon') };
}

/** Adds what was taken between two looks. */
export function addCosts(sum: Costs, before: Costs, after: Costs): Costs {
  return Object.fromEntries(
    Object.entries(after).map(([name, value]) => [name, (sum[name] ?? 0) + value - (before[name] ?? 0)]),
  );
}

export function perUnit(costs: Costs, units: number): Costs {
  return Object.fromEntries(
    Object.entries(costs).map(([name, value]) => [name, Math.round((100 * value) / units) / 100]),
  );
}
