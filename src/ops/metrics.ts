import { freemem, totalmem } from 'node:os';
import { setImmediate as turn } from 'node:timers/promises';
import type { EventName } from '../../protocol/control/events.js';
import type { VmView } from '../../protocol/control/schema.js';
import { Family, label } from './exposition.js';
import { eventFamily, policyFamilies, type PolicyMeasures } from './policy-families.js';
import { processMetrics } from './process-metrics.js';
import { VM_FAMILIES, type Measured } from './vm-families.js';
import { CULPRITS, VmMeters } from './vm-meters.js';

/** VMs written before guests' kicks are looked at again: about a millisecond. */
const VMS_PER_TURN = 16;

const STATES = ['connected', 'running', 'stopped'] as const;

export interface MeteredVm extends Measured {
  readonly name: string;
  readonly meters: VmMeters;
  view(): VmView;
}

/**
 * What GET /metrics answers. A VM's series end with it; of the sums over all VMs, gauges forget it and counters do not.
 */
export class Metrics {
  readonly #vms: () => Iterable<MeteredVm>;
  readonly #policy: () => PolicyMeasures | null;
  readonly #events: ReadonlyMap<EventName, number>;
  readonly #version: string;
  /** Counted by VMs that are gone: by rows of VM_FAMILIES, and the rest. */
  readonly #goneCounters = VM_FAMILIES.map(() => 0);
  readonly #goneMeters = new VmMeters();
  #writing: Promise<Buffer> | null = null;
  /** They went while an answer is written, of which they are part. */
  #leaving: MeteredVm[] = [];

  constructor(
    vms: () => Iterable<MeteredVm>,
    version: string,
    policy: () => PolicyMeasures | null = () => null,
    events: ReadonlyMap<EventName, number> = new Map(),
  ) {
    this.#vms = vms;
    this.#policy = policy;
    this.#events = events;
    this.#version = version;
  }

  /** The VM, or a device of it, is gone, or about to be: what it counted stays in the sums. */
  forget(vm: MeteredVm): void {
    if (this.#writing === null) this.#fold(vm);
    else this.#leaving.push(vm);
  }

  #fold(vm: MeteredVm): void {
    const view = vm.view();
    for (const [at, { type, read }] of VM_FAMILIES.entries()) {
      if (type === 'counter') this.#goneCounters[at] = (this.#goneCounters[at] ?? 0) + (read(view, vm) ?? 0);
    }
    this.#goneMeters.add(vm.meters);
  }

  /** In UTF-8. Those who ask while it is being written share the answer. */
  text(): Promise<Buffer> {
    this.#writing ??= this.#write().finally(() => {
      this.#writing = null;
      // Not before: a sum that falls and comes back counts twice for Prometheus.
      for (const vm of this.#leaving.splice(0)) this.#fold(vm);
    });
    return this.#writing;
  }

  async #write(): Promise<Buffer> {
    const families = VM_FAMILIES.map(({ name, type, help }) => new Family(`balloond_vm_${name}`, type, help));
    const kicks = new Family('balloond_vm_kick_to_ack_seconds', 'histogram', KICKS_HELP);
    const discards = new Family('balloond_vm_discard_seconds', 'histogram', DISCARDS_HELP);
    const diagnoses = new Family('balloond_vm_diagnosis', 'gauge', DIAGNOSIS_HELP);
    const errors = new Family('balloond_vm_errors_total', 'counter', ERRORS_HELP);
    const sums = VM_FAMILIES.map(({ type }, at) => (type === 'counter' ? (this.#goneCounters[at] ?? 0) : 0));
    const meters = new VmMeters();
    meters.add(this.#goneMeters);
    const states = { connected: 0, running: 0, stopped: 0 };

    let written = 0;
    for (const vm of [...this.#vms()]) {
      if (++written % VMS_PER_TURN === 0) await turn();
      const view = vm.view();
      const own = label('vm', vm.name);
      states[view.state]++;
      VM_FAMILIES.forEach(({ read, total }, at) => {
        const value = read(view, vm);
        if (value === null) return;
        families[at]?.add(own, value);
        if (total) sums[at] = (sums[at] ?? 0) + value;
      });
      if (view.diagnosis !== null) diagnoses.add(`${own},${label('code', view.diagnosis.code)}`, 1);
      const { kickToAck, discards: batches } = vm.meters;
      kicks.addHistogram(own, kickToAck.boundsSeconds, kickToAck.cumulative(), kickToAck.sumSeconds);
      discards.addHistogram(own, batches.boundsSeconds, batches.cumulative(), batches.sumSeconds);
      for (const culprit of CULPRITS) {
        errors.add(`${own},culprit="${culprit}"`, vm.meters.errors[culprit]);
      }
      meters.add(vm.meters);
    }
    const fleet = [
      ...families,
      kicks,
      discards,
      diagnoses,
      errors,
      ...totals(sums, meters, states),
      ...policyFamilies(this.#policy()),
      eventFamily(this.#events),
      ...this.#host(),
    ];
    return Buffer.concat([...fleet.flatMap((family) => family.bytes()), await processMetrics()]);
  }

  #host(): Family[] {
    const total = new Family('balloond_host_memory_bytes', 'gauge', 'Memory of the host');
    total.add('', totalmem());
    const available = new Family(
      'balloond_host_memory_available_bytes',
      'gauge',
      'Memory of the host that could be had without swapping',
    );
    available.add('', freemem());
    const info = new Family(
      'balloond_build_info',
      'gauge',
      'Always 1; the version of the daemon is its label',
    );
    info.add(label('version', this.#version), 1);
    return [total, available, info];
  }
}

const KICKS_HELP =
  "Time from the daemon's wake-up by a guest's kick until its buffers were given back, waiting for a turn or a discard included";
const DISCARDS_HELP = 'CPU time that the system calls of one batch of discards took';
const DIAGNOSIS_HELP = 'Always 1, while something is wrong with the VM; its label is the code of the verdict';
const ERRORS_HELP = 'Requests refused, rings stopped and system calls failed, by the culprit';

function totals(sums: readonly number[], meters: VmMeters, states: Record<string, number>): Family[] {
  const summed = VM_FAMILIES.flatMap(({ name, type, help, total }, at) => {
    if (!total) return [];
    const family = new Family(`balloond_${name}`, type, `${help}; all VMs`);
    family.add('', sums[at] ?? 0);
    return [family];
  });
  const kicks = new Family('balloond_kick_to_ack_seconds', 'histogram', `${KICKS_HELP}; all VMs`);
  const { kickToAck, discards, errors } = meters;
  kicks.addHistogram('', kickToAck.boundsSeconds, kickToAck.cumulative(), kickToAck.sumSeconds);
  const batches = new Family('balloond_discard_seconds', 'histogram', `${DISCARDS_HELP}; all VMs`);
  batches.addHistogram('', discards.boundsSeconds, discards.cumulative(), discards.sumSeconds);
  const faults = new Family('balloond_errors_total', 'counter', `${ERRORS_HELP}; all VMs`);
  for (const culprit of CULPRITS) faults.add(label('culprit', culprit), errors[culprit]);
  const vms = new Family('balloond_vms', 'gauge', 'VMs by the state of their guest driver');
  for (const state of STATES) vms.add(label('state', state), states[state] ?? 0);
  return [...summed, kicks, batches, faults, vms];
}
