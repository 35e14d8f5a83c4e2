import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, rmSync, existsSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Launch } from './qtest-machine.js';
export interface Place { root: string; onHost: string; inQemu: string; }
export function startQemu(place: Place, name: string): { launch: Launch; socketPath: string; qemuSocketPath: string } {
  return { launch: (args) => spawn('chroot', [place.root, 'qemu-system-x86_64', ...args], { stdio: 'inherit' }), socketPath: `${place.onHost}/${name}.qtest`, qemuSocketPath: `${place.inQemu}/${name}.qtest` };
}
export async function startDaemon(place: Place): Promise<{ pid: number; close(): Promise<void> }> {
  const path = `${place.onHost}/vhost.sock`;
  const child = spawn(process.execPath, ['out/bin/balloond.js', '--socket-path', path, '--control', `${place.onHost}/control.sock`, '--log-level', 'warn'], { stdio: 'inherit' });
  while (!existsSync(path)) await sleep(50);
  return { pid: child.pid ?? 0, close: async () => { child.kill(); await once(child, 'exit'); } };
}
export function tmpPlace(): Place { rmSync('/tmp/qroot/run/b', { recursive: true, force: true }); mkdirSync('/tmp/qroot/run/b', { recursive: true }); return { root: '/tmp/qroot', onHost: '/tmp/qroot/run/b', inQemu: '/run/b' }; }
