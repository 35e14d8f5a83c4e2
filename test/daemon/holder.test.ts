import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import {
  findHolder,
  handOverFailure,
  holderNow,
  partingWords,
  type Holder,
} from '../../src/daemon/holder.js';
import { NEXT_STEP } from '../support/next-step.js';

const SYSTEMD = { NOTIFY_SOCKET: '/run/systemd/notify' };
const neverAsked = (): never => {
  throw new Error('the environment says enough');
};
const of = (environment: Record<string, string>, version: number | null): Holder =>
  findHolder({ ...SYSTEMD, ...environment }, () => version);

void t.test('who holds the VMs, and over what', (t) => {
  t.match(findHolder({}, neverAsked), { by: null, heldOver: 'nothing', problem: { remedy: /--supervise/ } });
  t.match(findHolder({ ...SYSTEMD, FDSTORE: '512' }, neverAsked), {
    ...{ by: 'systemd', heldOver: 'stop', problem: null, most: 512 },
  });
  const keeper = { ...SYSTEMD, FDSTORE: '512', BALLOOND_KEEPER: '1' };
  t.match(findHolder(keeper, neverAsked), { by: 'keeper', heldOver: 'restart', problem: null });
  t.match(of({ BALLOOND_FDSTORE: '99' }, 252), {
    ...{ by: 'systemd', heldOver: 'restart', most: 99 },
    problem: { found: /^systemd 252 holds .*, and not over a stop$/, remedy: /upgrade to systemd 254/ },
  });
  t.match(of({}, 252), {
    by: null,
    problem: { remedy: /^under systemd 252 add Environment=BALLOOND_FDSTORE=/ },
  });
  t.match(of({ BALLOOND_FDSTORE: '99' }, 257), {
    ...{ by: null, heldOver: 'nothing' },
    problem: { remedy: /FileDescriptorStoreMax=/ },
  });
  t.match(of({ BALLOOND_FDSTORE: '99' }, null), { by: null }, 'a store that may not be there holds nothing');
  t.match(of({ FDSTORE: '0' }, 257), { by: null });
  t.end();
});

void t.test('a keeper that is gone holds nothing', (t) => {
  const environment = { ...SYSTEMD, FDSTORE: '512', BALLOOND_KEEPER: '77' };
  const holder = findHolder(environment, neverAsked);
  t.equal(holderNow(holder, environment, 77), holder);
  t.match(holderNow(holder, environment, 1), {
    ...{ by: null, heldOver: 'nothing' },
    problem: { found: /pid 77/, remedy: /--supervise/ },
  });
  const systemd = of({ FDSTORE: '512' }, 257);
  t.equal(holderNow(systemd, SYSTEMD, 12345), systemd);
  t.end();
});

void t.test('a holder that is full is told of with the setting that it has', (t) => {
  const full = 'there is room for 512 file descriptors';
  for (const by of ['systemd', 'keeper'] as const) {
    const said = handOverFailure({ by }, full);
    t.match(said, NEXT_STEP);
    t.ok(said.includes(`(${full})`));
    t.equal(said.includes('FileDescriptorStoreMax='), by === 'systemd', by);
  }
  t.end();
});

void t.test('what a daemon that ends says of its VMs is so', (t) => {
  const folder = t.testdir();
  const nobody = findHolder({}, neverAsked);
  const systemd = of({ FDSTORE: '512' }, 257);
  const older = of({ BALLOOND_FDSTORE: '99' }, 252);
  const socket = join(folder, 'notify');
  const keeper = findHolder({ NOTIFY_SOCKET: socket, FDSTORE: '512', BALLOOND_KEEPER: '1' }, neverAsked);
  for (const holder of [nobody, systemd, older, keeper])
    t.equal(partingWords(holder, 'SIGTERM', 0), 'SIGTERM');
  t.match(partingWords(nobody, 'SIGTERM', 2), /^SIGTERM; 2 VMs .*must not be rebooted: stop and start/);
  t.equal(partingWords(systemd, 'SIGTERM', 1), 'SIGTERM; systemd holds 1 VM for the next daemon');
  t.match(partingWords(older, 'SIGINT', 3), /3 VMs if this is a restart; if it is a stop, 3 VMs .*rebooted/);
  t.equal(partingWords(keeper, 'SIGTERM', 1), 'SIGTERM; the keeper holds 1 VM for the next daemon');
  writeFileSync(join(folder, 'stops'), '');
  t.match(partingWords(keeper, 'SIGTERM', 1), /^SIGTERM; the keeper ends, too, and 1 VM .*rebooted/);
  t.end();
});
