// A mixed fleet, with five real Linux guests: memory goes from a bronze VM of one kind to a gold VM of another, by the words of the guests,
// of the host and of the policy. `npm run bench -- mixed-fleet` measures how long that takes.
import t from 'tap';
import type { TraceLine } from '../../protocol/policy-trace.js';
import { MIB, startDaemon } from '../support/e2e.js';
import { LACKING_MIB, MixedFleet, RESERVE_SHARE, SHIFTS } from '../support/mixed-fleet.js';

/** Pages that guests touch meanwhile, and what QEMU itself takes. */
const SLACK = 32 * MIB;
/** The policy sees at one look that the host lacks memory, and the target stands in the trace of the next. */
const MOST_LOOKS = 2;

/**
 * The looks from the first one at which the host had less than its reserve to the first one with a larger target of the VM, as far as the
 * guest had said something new: the policy takes nothing before, and a busy guest takes its time.
 */
function looksUntilTaken(looks: readonly TraceLine[], name: string): number {
  const targetOf = ({ vms }: TraceLine): number => vms.find((vm) => vm.name === name)?.targetBytes ?? 0;
  const [first] = looks;
  if (first === undefined) return Infinity;
  const lacking = looks.findIndex(
    ({ availableBytes, totalBytes }) => availableBytes < RESERVE_SHARE * totalBytes,
  );
  const taken = looks.findIndex((look) => targetOf(look) > targetOf(first));
  if (lacking < 0 || taken < 0) return Infinity;
  const said = looks.map(({ vms }) => vms.find((vm) => vm.name === name)?.guestFreeBytes);
  const answers = said.filter((free, n) => n > lacking && n < taken && free !== said[n - 1]);
  return answers.length + 1;
}

void t.test('memory goes from bronze to gold, whichever kind of balloon either has', async (t) => {
  const fleet = await MixedFleet.boot(
    (config) => startDaemon(t, { config }),
    (end) => t.teardown(end),
  );
  const { daemon } = fleet;
  const kinds = (await daemon.list()).map(({ name, kind }) => [name, kind]);
  t.same(Object.fromEntries(kinds), {
    'gold-served': 'vhost-user',
    'bronze-served': 'vhost-user',
    'gold-adopted': 'qmp',
    'bronze-adopted': 'qmp',
    'bronze-domain': 'libvirt',
  });
  for (const shift of SHIFTS) {
    const { gold, bronze, grownMib, before, after, looks, took, seconds } = await fleet.shift(shift);
    t.comment(
      `${bronze} to ${gold}: ${seconds.toFixed(1)} s, ${looks.length} looks, ${JSON.stringify([...took])}`,
    );
    t.comment(JSON.stringify({ before, after }));
    t.equal([...took.keys()][0], bronze, 'the policy takes from this VM first');
    // On a machine that is slow to give: then the policy asks all bands.
    const halfGone = looks.some((look) => look.availableBytes < (RESERVE_SHARE / 2) * look.totalBytes);
    if (!halfGone) t.equal(took.size, 1, 'and from no other');
    const waited = looksUntilTaken(looks, bronze);
    t.ok(waited <= MOST_LOOKS, `${waited} looks after the host lacked memory`);
    const gave = before[bronze].guestTotal - after[bronze].guestTotal;
    t.ok(gave >= (LACKING_MIB * MIB) / 2, `${bronze} gave ${gave} by its own word`);
    const left = before[bronze].onHost - after[bronze].onHost;
    t.ok(Math.abs(left - gave) <= SLACK, `and ${left} by the word of the host`);
    const got = after[gold].onHost - before[gold].onHost;
    t.ok(Math.abs(got - grownMib * MIB) <= SLACK, `${gold} got ${got} by the word of the host`);
    if (!took.has(gold)) t.equal(after[gold].guestTotal, before[gold].guestTotal, 'and gave nothing');
    t.equal(await fleet.guests[gold].verify(), 0, 'what it holds is as it was written');
    t.match(await daemon.ok('policy', 'explain', bronze), new RegExp(`took .* from ${bronze} \\(bronze\\)`));
  }
});
