import t from 'tap';
import { Turns, type Seat } from '../../src/vhost-user/turns.js';

/** An event loop with a clock of its own: events of one turn, then what was put off until they were looked at, or else a pause. */
class Loop {
  now = 0;
  readonly turns = new Turns(
    () => this.now,
    (work, ms) => this.#later.push({ work, at: this.now + ms }),
  );
  #later: { work: () => void; at: number }[] = [];

  turn(events: () => void = () => undefined): void {
    const begun = this.now;
    events();
    const due = this.#later.filter(({ at }) => at <= this.now);
    this.#later = this.#later.filter(({ at }) => at > this.now);
    for (const { work } of due) work();
    if (this.now === begun && this.#later.length > 0) this.now = Math.min(...this.#later.map(({ at }) => at));
    else if (this.now === begun) this.now += 0.01;
  }

  idle(): boolean {
    return this.#later.length === 0;
  }
}

/** A VM with so many rings, each of which always has work for `costMs`. */
class Busy {
  done = 0;
  readonly #works: (() => void)[];

  constructor(
    loop: Loop,
    rings: number,
    costMs: number,
    readonly seat: Seat = loop.turns.seat(),
  ) {
    this.#works = Array.from({ length: rings }, () => () => {
      loop.now += costMs;
      this.done++;
    });
  }

  kick(): void {
    for (const work of this.#works) this.seat.run(work);
  }
}

void t.test('while there is time, everybody works at once', (t) => {
  const loop = new Loop();
  const vms = Array.from({ length: 5 }, () => new Busy(loop, 1, 0.5));
  for (let round = 1; round <= 1000; round++) {
    for (const vm of vms) {
      vm.kick();
      if (!loop.idle()) t.fail('put off');
      loop.now += 2;
    }
  }
  t.same(
    vms.map(({ done }) => done),
    [1000, 1000, 1000, 1000, 1000],
  );
  t.end();
});

void t.test(
  'one that is alone may have all of the time, in small parts, and a quiet one does not wait',
  (t) => {
    const loop = new Loop();
    const vm = new Busy(loop, 5, 1);
    const quiet = new Busy(loop, 1, 0.1);
    let longestMs = 0;
    let asked = 0;
    const until = (ms: number): void => {
      for (let turn = 1; loop.now < ms; turn++) {
        const begun = loop.now;
        loop.turn(() => {
          vm.kick();
          if (turn % 20 !== 0) return;
          quiet.kick();
          asked++;
        });
        longestMs = Math.max(longestMs, loop.now - begun);
        if (quiet.done !== asked) t.fail('the quiet one waits');
      }
    };
    until(3000);
    const before = vm.done;
    longestMs = 0;
    until(23_000);
    const share = (vm.done - before) / 20_000;
    t.ok(share > 0.98, `it has ${share} of the time`);
    t.equal(vm.seat.throttled, false, 'nobody else goes first');
    t.ok(longestMs < 3, `events are looked at after ${longestMs} ms`);
    t.end();
  },
);

void t.test('beside many that need a little, those that do all they can have two fifths of the time', (t) => {
  const loop = new Loop();
  const hostile = Array.from({ length: 3 }, () => new Busy(loop, 2, 1));
  const quiet = Array.from({ length: 50 }, () => new Busy(loop, 1, 0.1));
  let asked = 0;
  let nextMs = 0;
  const until = (ms: number): void => {
    while (loop.now < ms)
      loop.turn(() => {
        for (const vm of hostile) vm.kick();
        for (; nextMs <= loop.now; nextMs += 2) quiet[asked++ % quiet.length]?.kick();
      });
  };
  const done = (): number => hostile.reduce((sum, vm) => sum + vm.done, 0);
  until(3000);
  const before = done();
  until(23_000);
  const share = (done() - before) / 20_000;
  t.ok(share > 0.35 && share < 0.45, `they have ${share} of the time`);
  t.equal(
    quiet.reduce((sum, vm) => sum + vm.done, 0),
    asked,
    'nobody else waits',
  );
  t.end();
});

void t.test('who leaves and comes back has taken what it took, for as long as that counts', (t) => {
  const loop = new Loop();
  const first = loop.turns.seat(undefined, 7);
  first.measure(() => (loop.now += 400));
  first.leave();
  t.equal(loop.turns.seat(undefined, 8).taken(), 0, 'another process');
  t.equal(loop.turns.seat(undefined, 7).taken(), 400);
  t.equal(loop.turns.seat(undefined, 7).taken(), 0, 'one more VM of that process, which took nothing yet');
  t.end();
});

void t.test('beside ten that do all they can, one gets its share, and a quiet one does not wait', (t) => {
  const loop = new Loop();
  const hostile = Array.from({ length: 10 }, () => new Busy(loop, 6, 1));
  const honest = new Busy(loop, 1, 1);
  const quiet = new Busy(loop, 1, 0.05);
  let asked = 0;
  let turns = 0;
  let longestMs = 0;
  const round = (): void => {
    const begun = loop.now;
    loop.turn(() => {
      for (const vm of hostile) vm.kick();
      honest.kick();
      if (++turns % 20 !== 0) return;
      asked++;
      quiet.kick();
    });
    longestMs = Math.max(longestMs, loop.now - begun);
  };
  // Until it is known who takes how much.
  while (loop.now < 3000) round();
  const before = { honest: honest.done, hostile: hostile.map(({ done }) => done) };
  longestMs = 0;
  while (loop.now < 23_000) {
    round();
    if (quiet.done !== asked) t.fail('the quiet one waits');
  }
  const theirs = hostile.map(({ done }, n) => done - (before.hostile[n] ?? 0));
  const all = theirs.reduce((sum, done) => sum + done, 0) + honest.done - before.honest;
  t.ok((honest.done - before.honest) / all > 0.9 / 11, `${honest.done - before.honest} of ${all}`);
  t.ok(Math.min(...theirs) / all > 0.9 / 11, 'and so does each of them');
  t.ok(longestMs < 3, `events are looked at after ${longestMs} ms of work`);
  t.ok(all > 19_500, `all of them have ${all} of 20,000 ms`);
  t.end();
});

void t.test('what had to wait is done once, in its order, and nothing of one that left', (t) => {
  const loop = new Loop();
  const [seat, other, gone] = [loop.turns.seat(), loop.turns.seat(), loop.turns.seat()];
  for (const busy of [seat, other, gone]) busy.measure(() => (loop.now += 500));
  const done: string[] = [];
  const [a, b, c] = ['a', 'b', 'c'].map((name) => () => {
    loop.now += 1;
    done.push(name);
  }) as [() => void, () => void, () => void];
  for (const work of [a, b, a, b]) seat.run(work);
  gone.run(c);
  gone.leave();
  other.run(() => done.push('other'));
  t.same(done, []);
  while (!loop.idle()) loop.turn();
  t.same([...done].sort(), ['a', 'b', 'other']);
  t.ok(done.indexOf('a') < done.indexOf('b'));
  seat.run(() => seat.run(a));
  while (!loop.idle()) loop.turn();
  t.equal(done.length, 4, 'what is part of a turn has no turn of its own');
  t.end();
});

void t.test('who waits for long is told of, once until it did not wait for a while', (t) => {
  const loop = new Loop();
  const told: number[] = [];
  const vms = [
    new Busy(
      loop,
      1,
      1,
      loop.turns.seat(() => told.push(loop.now)),
    ),
    new Busy(loop, 6, 1),
    new Busy(loop, 1, 1),
  ];
  const [vm] = vms;
  const round = (): void => loop.turn(() => vms.forEach((busy) => busy.kick()));
  while (loop.now < 2500) round();
  t.equal(told.length, 0, 'not for a moment');
  t.equal(vm?.seat.throttled, false);
  while (loop.now < 20_000) round();
  t.equal(told.length, 1);
  t.equal(vm?.seat.throttled, true);
  loop.now += 20_000;
  t.equal(vm?.seat.throttled, false);
  const again = loop.now + 20_000;
  while (loop.now < again) round();
  t.equal(told.length, 2);
  t.end();
});
