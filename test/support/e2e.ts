// What every test with a real guest begins with; all of it ends with the test.
import type { Test } from 'tap';
import type { Finding } from '../../src/control/cli/finding.js';
import { DaemonProcess } from './daemon.js';
import { Guest, type DeviceOptions, type GuestOptions } from './lab/guest.js';

export const MIB = 2 ** 20;
export const GIB = 2 ** 30;

export async function startDaemon(
  t: Test,
  options?: Parameters<typeof DaemonProcess.start>[0],
): Promise<DaemonProcess> {
  const daemon = await DaemonProcess.start(options);
  t.teardown(() => daemon.stop());
  return daemon;
}

/** A guest whose one device is `daemon`'s balloon, up and with its driver loaded. */
export async function boot(
  t: Test,
  daemon: Pick<DaemonProcess, 'socketPath'>,
  name: string,
  options: Partial<GuestOptions> & { device?: Partial<DeviceOptions> } = {},
): Promise<Guest> {
  const { device, ...rest } = options;
  const sockets = [{ path: daemon.socketPath, ...device }];
  const guest = await Guest.boot({ name, memoryMib: 512, sockets, ...rest });
  t.teardown(() => guest.kill());
  await guest.waitReady();
  return guest;
}

/** What doctor finds of a VM by one of its checks. */
export async function found(
  daemon: DaemonProcess,
  name: string,
  wanted: string,
): Promise<Finding | undefined> {
  const findings = JSON.parse((await daemon.ctl('doctor', '--json')).stdout) as Finding[];
  return findings.find(({ subject, check }) => subject === name && check === wanted);
}
