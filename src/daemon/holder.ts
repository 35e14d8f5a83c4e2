import { existsSync } from 'node:fs';
import { dirname, join } from 'node:path';
import type { NextStep } from '../../protocol/control/refusal.js';
import type { DaemonView } from '../../protocol/control/schema.js';
import { KEEPER_STOPS } from '../ops/fd-store.js';

type Environment = Readonly<Record<string, string | undefined>>;

/** The process that holds the sockets and the memory of VMs while no daemon runs. */
export interface Holder {
  by: DaemonView['holder'];
  heldOver: DaemonView['heldOver'];
  /** Why the end of the daemon puts VMs at risk, and what to do; null: it does not. */
  problem: { found: string; remedy: NextStep } | null;
  /** Where it is spoken to. */
  socket: string;
  /** File descriptors that it takes. */
  most: number;
}

/** The first version that sets FDSTORE, and keeps what a stopped service left (FileDescriptorStorePreserve=). */
const FIRST_THAT_SAYS_SO = 254;
const NOBODY =
  'nobody holds the VMs of this daemon, so it must not end while VMs run that it serves over vhost-user, or QEMU aborts each at the next reboot of its guest (adopted VMs go on)';

/**
 * Who holds the VMs of a daemon with this environment. `systemdVersion` is asked where the environment does not say
 * enough, and is null where it cannot be told.
 */
export function findHolder(environment: Environment, systemdVersion: () => number | null): Holder {
  const { NOTIFY_SOCKET: socket, FDSTORE: most, BALLOOND_KEEPER, BALLOOND_FDSTORE } = environment;
  if (socket === undefined || socket === '') {
    return nobody('start it with --supervise, or by its unit (balloond.service)');
  }
  if (Number(most) > 0) {
    return BALLOOND_KEEPER === undefined
      ? { by: 'systemd', heldOver: 'stop', problem: null, socket, most: Number(most) }
      : { by: 'keeper', heldOver: 'restart', problem: null, socket, most: Number(most) };
  }
  const version = systemdVersion();
  if (version === null || version >= FIRST_THAT_SAYS_SO) {
    return nobody('give its unit FileDescriptorStoreMax=16384, or start it with --supervise');
  }
  if (Number(BALLOOND_FDSTORE) > 0) {
    const problem: Holder['problem'] = {
      found: `systemd ${version} holds the VMs over a restart of this daemon, and not over a stop`,
      remedy: 'stop balloond.service only when no VM runs, or upgrade to systemd 254',
    };
    return { by: 'systemd', heldOver: 'restart', problem, socket, most: Number(BALLOOND_FDSTORE) };
  }
  // It has a store, and does not say so.
  return nobody(
    `under systemd ${version} add Environment=BALLOOND_FDSTORE=16384 beside FileDescriptorStoreMax=16384 in its unit, start it with --supervise, or upgrade to systemd 254`,
  );
}

function nobody(remedy: NextStep, found = NOBODY): Holder {
  return { by: null, heldOver: 'nothing', problem: { found, remedy }, socket: '', most: 0 };
}

/** Who holds the VMs now: a keeper that is gone holds none of them, and the daemon has another parent, `parentPid`. */
export function holderNow(holder: Holder, environment: Environment, parentPid = process.ppid): Holder {
  const { BALLOOND_KEEPER: keeperPid } = environment;
  if (holder.by !== 'keeper' || keeperPid === String(parentPid)) return holder;
  const found = `the keeper (pid ${keeperPid ?? '?'}) is gone, and ${NOBODY}`;
  return nobody('restart it with --supervise once none of its VMs runs', found);
}

/** The message of hand-over-failed: why the holder takes no more of this daemon, and what to do. */
export function handOverFailure({ by }: Pick<Holder, 'by'>, reason: string): string {
  const more = by === 'systemd' ? 'raise FileDescriptorStoreMax= in the unit, or ' : '';
  return `VMs that connect from now on cannot be handed over to the next daemon (${reason}): ${more}end this daemon only when none of those VMs runs`;
}

/** What becomes of this many VMs, for the last line of a daemon that a signal ends. */
export function partingWords(holder: Holder, signal: string, vms: number): string {
  if (vms === 0) return signal;
  const those = vms === 1 ? '1 VM' : `${vms} VMs`;
  const lost = `${those} without a balloon from now on must not be rebooted: stop and start each of them instead`;
  if (holder.by === null) return `${signal}; ${lost}`;
  if (holder.by === 'keeper') {
    return existsSync(join(dirname(holder.socket), KEEPER_STOPS))
      ? `${signal}; the keeper ends, too, and ${lost}`
      : `${signal}; the keeper holds ${those} for the next daemon`;
  }
  return holder.heldOver === 'stop'
    ? `${signal}; systemd holds ${those} for the next daemon`
    : `${signal}; systemd holds ${those} if this is a restart; if it is a stop, ${lost}`;
}
