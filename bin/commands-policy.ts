/** The command `balloonctl policy`, and the simulator behind it. */
import { POLICY_ACTIONS, POLICY_MODES } from '../src/control/cli/choices.js';
import { UsageError } from '../src/control/cli/exit.js';
import { oneOf, size, text, whole } from '../src/control/cli/option-values.js';
import type { Command } from './command.js';

export const POLICY_COMMAND: Command = {
  name: 'policy',
  group: 'order',
  operands: ['action', 'vm?'],
  choices: POLICY_ACTIONS,
  summary: 'show | mode | pause | resume | explain | simulate',
  details:
    'Shows the policy (`show`) and its last decision about a VM (`explain`), sets its mode (`mode observe`, `auto`, `off`; `configured`: of the configuration), stops it, for all VMs or one (`pause`, `resume`), or runs it over a fleet (`simulate`).',
  options: {
    'dry-run': { summary: 'mode auto: say what it would do now, and change nothing' },
    trace: { value: 'file', summary: 'simulate: a file that a daemon recorded' },
    synthetic: { value: 'n', summary: 'simulate: a fleet of that many VMs' },
    hours: { value: 'n', summary: 'simulate: for so long (default 24)' },
    'vms-per-host': { value: 'n', summary: 'simulate: of the fleet (default 50)' },
    'host-memory': { value: 'size', summary: 'simulate: of each host (default 256G)' },
    seed: { value: 'n', summary: 'simulate: another number, another fleet (default 1)' },
    compare: { summary: 'simulate: beside other policies' },
    capacity: { summary: 'simulate: how many VMs fit a host; --synthetic is the number of hosts' },
    seeds: { value: 'n', summary: 'simulate: with --capacity, over so many fleets' },
    plot: { value: 'file', summary: 'simulate: draw it (SVG)' },
    config: { value: 'file', summary: 'simulate: with the [policy] of this file' },
  },
  run: async ({ client, output, vm: action, second, values }) => {
    if (action === 'simulate') {
      const { simulate } = await import('../src/simulate/command.js');
      const { readConfigFile } = await import('../src/daemon/config/read.js');
      const config = text(values, 'config');
      const number = (name: string, otherwise: number): number => whole(values, name) ?? otherwise;
      const trace = text(values, 'trace');
      const synthetic = whole(values, 'synthetic');
      if ((trace === undefined) === (synthetic === undefined)) {
        throw new UsageError('simulate needs --trace FILE or --synthetic N');
      }
      simulate(output, config === undefined ? {} : readConfigFile(config), {
        trace,
        vms: synthetic ?? 0,
        hours: number('hours', 24),
        vmsPerHost: number('vms-per-host', 50),
        hostBytes: size(values, 'host-memory') ?? 256 * 1024 ** 3,
        seed: number('seed', 1),
        compare: values['compare'] === true,
        capacity: values['capacity'] === true,
        seeds: number('seeds', 1),
        plot: text(values, 'plot'),
      });
      return;
    }
    const dryRun = values['dry-run'] === true;
    if (dryRun && (action !== 'mode' || second !== 'auto'))
      throw new UsageError('--dry-run is for policy mode auto');
    const { showPolicy, policyMode, policyDryRun, pausePolicy, explainPolicy } =
      await import('../src/control/cli/policy.js');
    if (action === 'show') return showPolicy(await client(), output);
    if (action === 'mode') {
      const mode = oneOf(POLICY_MODES, second ?? undefined) ?? null;
      if (second !== null && mode === null)
        throw new UsageError(`policy mode: write one of ${POLICY_MODES.join(', ')}`);
      return dryRun ? policyDryRun(await client(), output) : policyMode(await client(), output, mode);
    }
    if (action === 'pause' || action === 'resume') {
      return pausePolicy(await client(), output, second, action === 'pause');
    }
    if (second === null) throw new UsageError('policy explain needs VM');
    return explainPolicy(await client(), output, second);
  },
};
