/** What is to be said of the daemon itself, whatever was asked for. */
import type { DaemonView } from '../../../protocol/control/schema.js';
import { stderr } from '../../os/print.js';
import { printable, type Output } from './output.js';

/** Of a daemon that is too old to say more, the version. */
export type DaemonSaid = Partial<DaemonView> & Pick<DaemonView, 'version'>;

/** Something that is not as it should be, and what to do about it. */
interface Note {
  found: string;
  remedy: string;
}

/** Null: the daemon is of the same version as this balloonctl. */
export function otherVersion({ version, holder, heldOver }: DaemonSaid, own: string): Note | null {
  if (version === own) return null;
  const found = `the daemon is balloond ${version}, and this is balloonctl ${own}`;
  if (heldOver === undefined) return { found, remedy: 'restart the daemon when that suits' };
  return {
    found,
    remedy:
      heldOver === 'nothing'
        ? 'restart the daemon when no VM runs'
        : `${holder === 'systemd' ? 'run systemctl restart balloond.service' : 'end the daemon, and its keeper starts it again'}; its VMs go on`,
  };
}

/** Null: VMs go on when the daemon ends, or it is too old to say. */
export function notHeld({ holderProblem, holderRemedy }: DaemonSaid): Note | null {
  if (holderProblem === undefined || holderProblem === null) return null;
  return { found: holderProblem, remedy: holderRemedy ?? 'see not-held in balloond(8)' };
}

/** Null: the settings of the files are in force, or the daemon is too old to say. */
export function mistaken({ configMistake }: DaemonSaid): Note | null {
  if (configMistake === undefined || configMistake === null) return null;
  const found = `the settings in the files are not in force, since they have a mistake: ${configMistake}`;
  return { found, remedy: 'mend the mistake, then run balloonctl reload' };
}

/** On stdout for people, on stderr where stdout is for a program. */
export function tellNotes(
  daemon: DaemonSaid,
  own: string,
  output: Output,
  forProgram: boolean = output.json,
): void {
  const notes = [otherVersion(daemon, own), notHeld(daemon), mistaken(daemon)];
  tell([...notes.filter((note) => note !== null), ...problemNotes(daemon)], output, forProgram);
}

/** What keeps the daemon from VMs that it is to adopt. Returns whether anything does. */
export function tellAdopting({ problems = [], version }: DaemonSaid, output: Output): boolean {
  const notes = problemNotes({ version, problems: problems.filter(({ part }) => part === 'libvirt') });
  tell(notes, output, output.json);
  return notes.length > 0;
}

function problemNotes({ problems = [] }: DaemonSaid): Note[] {
  return problems.map(({ text, remedy }) => ({ found: text, remedy }));
}

function tell(notes: readonly Note[], output: Output, forProgram: boolean): void {
  for (const note of notes) {
    const line = printable(`${note.found}: ${note.remedy}`);
    if (forProgram) stderr.write(`balloonctl: note: ${line}\n`);
    else output.print(output.paint('yellow', line));
  }
}
