// A guest that could take nothing out of its balloon when it runs out of memory, on a host with less memory than it needs: by its own word,
// the policy leaves it what it uses, and the operator is told that the reserve cannot be met.
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import t from 'tap';
import { ControlClient } from '../../src/control/client.js';
import { eventually } from '../support/deadline.js';
import { found, MIB, startDaemon } from '../support/e2e.js';
import { Guest } from '../support/lab/guest.js';
import { residentBytes } from '../support/mixed-fleet.js';

const CONFIG = `[[qmp]]
path = "{folder}/*.qmp"

[[vm]]
match = "*"
stats-interval = 1

[policy]
mode = "auto"
memory = "480M"
reserve = "20%"
interval = 0.5

[[policy.band]]
name = "gold"
min = "25%"
`;
const RESERVE_BYTES = 96 * MIB;

void t.test(
  'a guest that could take nothing back keeps what it uses, however short the host is',
  async (t) => {
    const daemon = await startDaemon(t, { config: CONFIG });
    const client = new ControlClient(daemon.controlPath);
    const guest = await Guest.boot({
      name: 'firm',
      memoryMib: 512,
      share: false,
      // Without free page reporting, which gives memory back that is free.
      extraArgs: [
        '-device',
        'virtio-balloon-pci,id=balloon0',
        '-qmp',
        `unix:${join(daemon.folder, 'firm.qmp')},server=on,wait=off`,
      ],
    });
    t.teardown(() => guest.kill());
    await guest.waitReady();
    const told = async (name: string) => (await daemon.events()).filter(({ event }) => event === name);

    // Memory that it used before, and has free again, goes to the host, once the guest did without it for some time.
    t.ok(await guest.eat(380));
    await guest.hold(100, 1);
    await eventually(
      async () => ((await client.policy()).host?.availableBytes ?? 0) >= RESERVE_BYTES,
      () => `the host has its reserve\n${daemon.log}`,
    );
    const { pid, balloon } = await daemon.show('firm');
    t.ok(balloon.actualBytes > 16 * MIB, 'of its balloon');
    t.ok(residentBytes(pid) < 400 * MIB, 'by the word of the host');
    const { MemAvailable: available = 0 } = await guest.meminfo();
    t.ok(available > 96 * MIB, `the guest has ${available} available, by its own word`);
    const before = (await told('reserve-unmet')).length;
    t.equal(
      (await told('reserve-met')).length,
      before,
      'what was told while the guest had used it lately is over',
    );

    // It grows into the reserve, by memory that nobody else has; each time, what it held is dropped first.
    for (const mib of [150, 200, 240, 270]) {
      await guest.hold(mib, mib);
      await sleep(3000);
    }
    await eventually(
      async () => (await told('reserve-unmet')).length > before,
      () => `it is told\n${daemon.log}`,
    );
    const unmet = (await told('reserve-unmet')).at(-1);
    t.match(unmet, {
      message:
        /^the VMs cannot give the reserve of 96 MiB, because available to VMs .* MiB, and at most .*: raise memory/,
      fields: { reserveBytes: RESERVE_BYTES },
    });
    for (const command of [['list'], ['policy', 'show'], ['policy', 'explain', 'firm']])
      t.match(
        await daemon.ok(...command),
        /the VMs cannot give the reserve of 96 MiB.*: raise memory/,
        command.join(' '),
      );
    t.match(await found(daemon, 'daemon', 'policy'), { level: 'mend', mend: /^raise memory in \[policy\]/ });
    t.equal(await guest.verify(), 0, 'what the guest holds is as it was written');
    t.equal((await told('reserve-unmet')).length, before + 1, 'once');

    await guest.kill();
    await eventually(
      async () => (await told('reserve-met')).length > before,
      () => `it is over\n${daemon.log}`,
    );
    t.notMatch(await daemon.ok('list'), /the VMs cannot give/);
  },
);
