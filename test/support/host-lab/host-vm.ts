/**
 * A Debian host in a VM (scripts/host-lab) with what was built in the working tree, which its own installer installs. What is
 * done to it is thrown away with it.
 */
import { execFile } from 'node:child_process';
import { mkdirSync, mkdtempSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { Guest, type GuestOptions, type ShellResult } from '../lab/guest.js';

const run = promisify(execFile);
export const ROOT = join(import.meta.dirname, '../../../..');
/** The serial port after the agent's. */
const PAYLOAD_PORT = '/dev/vport0p2';
/** Where in the VM the tests' own programs are. */
export const TESTS = '/opt/balloond-tests';
/** Where in the VM the folder is that balloond was built in, less what installing does not take. */
export const BUILT = `${TESTS}/balloond`;
/** On a busy machine an emulated program may have no turn for minutes. */
export const PATIENCE_SECONDS = 600;
/** Of `balloonctl set`. */
export const WAIT = `--wait --timeout ${PATIENCE_SECONDS}`;
const COMMAND_TIMEOUT_MS = (PATIENCE_SECONDS + 60) * 1000;

export class HostVm {
  readonly guest: Guest;
  readonly #folder: string;
  readonly #payloadBytes: number;

  private constructor(guest: Guest, folder: string, payloadBytes: number) {
    this.guest = guest;
    this.#folder = folder;
    this.#payloadBytes = payloadBytes;
  }

  /**
   * `stage`: lays out below a folder what is to be unpacked in it, beside what was built and the tests' own programs. `packages`: of Debian, beside
   * those of every host. `machine`: what differs.
   */
  static async boot(
    stage: (folder: string) => Promise<void> = () => Promise.resolve(),
    {
      extraArgs = [],
      packages = [],
      ...machine
    }: Partial<GuestOptions> & { packages?: readonly string[] } = {},
  ): Promise<HostVm> {
    const folder = mkdtempSync(join(tmpdir(), 'balloond-host-'));
    try {
      const [{ stdout: image }, payload] = await Promise.all([
        run('sh', [join(ROOT, 'scripts/host-lab'), ...packages]),
        pack(folder, stage),
      ]);
      const guest = await Guest.boot({
        name: 'host',
        memoryMib: 1024,
        cpus: 2,
        rootImage: image.trim(),
        ...machine,
        extraArgs: [
          ...extraArgs,
          ...['-chardev', `file,id=payload,path=/dev/null,input-path=${payload}`],
          ...['-device', 'virtserialport,chardev=payload'],
        ],
      });
      const vm = new HostVm(guest, folder, statSync(payload).size);
      try {
        await guest.waitReady(PATIENCE_SECONDS * 1000);
        return vm;
      } catch (error) {
        await vm.close();
        throw error;
      }
    } catch (error) {
      rmSync(folder, { recursive: true, force: true });
      throw error;
    }
  }

  async unpack(): Promise<void> {
    await this.ok(`head -c ${this.#payloadBytes} ${PAYLOAD_PORT} | tar -xf - -C /`);
  }

  /** Installs balloond as an operator does from the folder that it was built in. */
  async install(): Promise<void> {
    await this.unpack();
    await this.installer();
  }

  installer(mode: '' | '--remove' | '--purge' = ''): Promise<string> {
    return this.ok(`sh ${BUILT}/scripts/install-system ${mode}`);
  }

  sh(command: string): Promise<ShellResult> {
    return this.guest.sh(command, COMMAND_TIMEOUT_MS);
  }

  /** The command's output; throws it when the command fails. */
  async ok(command: string): Promise<string> {
    const { code, output } = await this.sh(command);
    if (code !== 0) {
      const { output: journal } = await this.sh('journalctl --no-pager --output=cat -n 40');
      throw new Error(`${command} ended with ${code}: ${output}\n--- journal\n${journal}`);
    }
    return output.trim();
  }

  async json<T>(command: string): Promise<T> {
    return JSON.parse(await this.ok(command)) as T;
  }

  /** A property of balloond.service as systemctl names it. */
  service(name: string): Promise<string> {
    return this.ok(`systemctl show --value --property=${name} balloond.service`);
  }

  async close(): Promise<void> {
    await this.guest.kill();
    rmSync(this.#folder, { recursive: true, force: true });
  }
}

/** One archive: what is laid out, what was built, and the tests' programs. */
async function pack(folder: string, lay: (stage: string) => Promise<void>): Promise<string> {
  const stage = join(folder, 'stage');
  const payload = join(folder, 'payload.tar');
  mkdirSync(stage);
  await lay(stage);
  await layOutBuilt(stage);
  await run('tar', ['-cf', payload, '--owner=0', '--group=0', '--mode=go=rX,u+rw', '-C', stage, '.']);
  return payload;
}

/** Lays out below a folder, at `TESTS`, what was built in the working tree and the tests' own programs. */
export async function layOutBuilt(stage: string): Promise<void> {
  await run('sh', [
    '-ec',
    `mkdir -p "$2/out/test" "$2/balloond"
    (cd "$1" && tar -cf - scripts/install-system systemd deploy guest docs package.json LICENSE ./*.md out/bin/*.js out/bin/package.json out/page \\
      out/generated src/native/build/Release \\
      node_modules/unix-dgram node_modules/bindings node_modules/file-uri-to-path) | tar -xf - -C "$2/balloond"
    cp -R "$1/out/test/support" "$2/out/test/"
    cp -R "$1/out/src" "$1/out/protocol" "$2/out/"
    find "$2" -name '*.map' -delete
    printf '{"type":"module"}' >"$2/package.json"
    ln -s balloond/src "$2/src"`,
    ...['sh', ROOT, join(stage, TESTS)],
  ]);
}
