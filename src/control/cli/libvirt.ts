/** `balloonctl libvirt`: gives a domain balloond's own device, or QEMU's balloon again, from its next start on. */
import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { passedOn, refusal, RefusingError, type NextStep } from '../../../protocol/control/refusal.js';
import { withBalloon, withoutBalloon } from '../../../protocol/libvirt/enable.js';
import { XmlError } from '../../../protocol/libvirt/xml.js';
import type { LIBVIRT_ACTIONS } from './choices.js';
import { printable, type Output } from './output.js';
import { libvirtWords } from './qemu-args.js';

const TIMEOUT_MS = 60_000;
/** Files of Debian, by which AppArmor and the group of the socket let libvirt's QEMU in. */
const APPARMOR = '/etc/apparmor.d/abstractions/libvirt-qemu';
const APPARMOR_LOCAL = '/etc/apparmor.d/local/abstractions/libvirt-qemu';

/** The domain cannot be changed. */
class DomainError extends RefusingError {
  override readonly name = 'DomainError';
}

interface Wanted {
  readonly action: (typeof LIBVIRT_ACTIONS)[number];
  readonly domain: string;
  readonly socketPath: string;
  readonly dryRun: boolean;
}

/** Throws DomainError. */
export function changeDomain(output: Output, { action, domain, socketPath, dryRun }: Wanted): void {
  const folder = mkdtempSync(join(tmpdir(), 'balloonctl-'));
  try {
    const before = run('virsh', ['dumpxml', '--inactive', '--security-info', '--', domain]);
    const xml = changed(domain, () =>
      action === 'enable' ? withBalloon(before, libvirtWords(socketPath)) : withoutBalloon(before),
    );
    const file = join(folder, 'domain.xml');
    writeFileSync(file, xml, { mode: 0o600 });
    // By the schema that libvirt has for domains.
    if (dryRun) run('virt-xml-validate', [file, 'domain']);
    else run('virsh', ['define', '--validate', '--file', file]);
    if (output.json) output.document({ domain, xml, defined: !dryRun });
    else output.print(dryRun ? xml.trimEnd() : saidOf(action, domain));
    if (action === 'enable' && !output.json) for (const line of owed()) output.print(line);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

function saidOf(action: Wanted['action'], domain: string): string {
  const what = action === 'enable' ? "balloond's own device" : "QEMU's own balloon";
  const name = printable(domain);
  return `${name}: has ${what} from its next start on: run \`virsh shutdown ${name}\`, and then \`virsh start ${name}\``;
}

/** What this host has yet to allow, each with its command; as far as Debian's files tell. */
function owed(): string[] {
  const lines = [];
  if (!/^balloond-vmm:.*\blibvirt-qemu\b/m.test(read('/etc/group')))
    lines.push('QEMU may not open the socket yet: run `usermod --append --groups balloond-vmm libvirt-qemu`');
  if (read(APPARMOR) !== '' && !read(APPARMOR_LOCAL).includes('/run/balloond/'))
    lines.push(
      `AppArmor keeps QEMU from the socket: run \`echo '/run/balloond/{,vmm/}*.sock rw,' >>${APPARMOR_LOCAL}\``,
    );
  return lines;
}

function changed(domain: string, change: () => string): string {
  try {
    return change();
  } catch (error) {
    if (!(error instanceof XmlError)) throw error;
    throw new DomainError(
      refusal(
        `the domain ${printable(domain)} cannot be changed, since ${error.message}`,
        'see virsh dumpxml',
      ),
    );
  }
}

/** Throws DomainError with the program's own words. */
function run(program: 'virsh' | 'virt-xml-validate', args: readonly string[]): string {
  const connection = program === 'virsh' ? ['--connect', 'qemu:///system'] : [];
  try {
    return execFileSync(program, [...connection, ...args], {
      encoding: 'utf8',
      timeout: TIMEOUT_MS,
      stdio: ['ignore', 'pipe', 'pipe'],
    });
  } catch (error) {
    const { code, stderr = '' } = error as { code?: string; stderr?: string };
    if (code === 'ENOENT')
      throw new DomainError(refusal(`there is no ${program}`, 'run `apt install libvirt-clients`'));
    const words = stderr.trim().split('\n').map(printable).join('; ');
    const step: NextStep = 'see virsh list --all, and run the command as root';
    throw new DomainError(words === '' ? passedOn(`${program} failed: ${step}`) : refusal(words, step));
  }
}

function read(path: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    return '';
  }
}
