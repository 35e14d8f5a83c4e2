// What the shells themselves make of the scripts; zsh and fish where they are at hand.
import { execFile } from 'node:child_process';
import { chmodSync, writeFileSync } from 'node:fs';
import { delimiter, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import t, { type Test } from 'tap';
import { serveFleet, temporaryFolder, vmView } from '../../support/fleet.js';

const run = promisify(execFile);
const BALLOONCTL = fileURLToPath(new URL('../../../bin/balloonctl.js', import.meta.url));

/** Folder with a `balloonctl` that asks a daemon with two VMs. */
async function installed(t: Test): Promise<string> {
  const { socketPath, fleet } = await serveFleet(t);
  fleet.put(vmView('db-1'));
  // Names like this do not come from the daemon; one that could is not to reach a shell.
  fleet.put(vmView('$(touch /tmp/balloond-completed)'));
  const folder = temporaryFolder(t);
  const program = join(folder, 'balloonctl');
  writeFileSync(
    program,
    `#!/bin/sh\nexec "${process.execPath}" "${BALLOONCTL}" --control "${socketPath}" "$@"\n`,
  );
  chmodSync(program, 0o755);
  return folder;
}

function environment(folder: string): NodeJS.ProcessEnv {
  return { ...process.env, HOME: folder, PATH: `${folder}${delimiter}${process.env['PATH'] ?? ''}` };
}

type Shell = 'bash' | 'zsh' | 'fish';

/** Scripts that print what the shell would offer for the words, one a line. */
const ASK: Record<Shell, string> = {
  bash: `eval "$(balloonctl completion bash)"
    COMP_WORDS=(balloonctl "$@"); COMP_CWORD=$#; _balloonctl; printf '%s\\n' "\${COMPREPLY[@]}"`,
  // The completion system itself wants a terminal: what the script hands to it is what counts.
  zsh: `compdef() { :; }; _files() { print -l *; }
    compadd() { shift; for word in "$@"; do case $word in \${words[CURRENT]}*) print -r -- $word ;; esac; done; }
    eval "$(balloonctl completion zsh)"
    words=(balloonctl "$@"); CURRENT=$#words; _balloonctl`,
  fish: `balloonctl completion fish | source; complete -C "balloonctl $argv" | string split -f1 \\t; true`,
};

async function offered(shell: Shell, folder: string, ...words: string[]): Promise<string[]> {
  const args =
    shell === 'fish' ? ['-c', ASK.fish, '--', words.join(' ')] : ['-c', ASK[shell], shell, ...words];
  const { stdout, stderr } = await run(shell, args, { env: environment(folder), cwd: folder });
  t.equal(stderr, '');
  return stdout.split('\n').filter((line) => line !== '');
}

for (const shell of ['bash', 'zsh', 'fish'] as const) {
  void t.test(`${shell} completes commands, options, their values, and VMs`, async (t) => {
    const folder = await installed(t);
    if (shell !== 'bash') {
      const found = await run(shell, ['-c', 'true']).catch(() => null);
      if (found === null) {
        t.pass(`${shell} is not installed`, { skip: true });
        return;
      }
    }
    const ask = (...words: string[]): Promise<string[]> => offered(shell, folder, ...words);
    t.same((await ask('li')).sort(), ['libvirt', 'limit', 'list']);
    t.ok((await ask('')).includes('doctor'));
    t.same((await ask('show', '')).filter((word) => !word.startsWith('-')).sort(), ['db-1', 'web1']);
    t.same(await ask('show', 'd'), ['db-1']);
    t.same(
      (await ask('--json', 'set', 'web1', '--me')).map((word) => word.split('=')[0]),
      ['--memory'],
    );
    t.same(await ask('qemu-args', '--for', 'c'), ['cloud-hypervisor', 'crosvm']);
    t.same(
      (await ask('policy', 're')).filter((word) => word !== '--reason'),
      ['resume'],
    );
    t.same(await ask('completion', 'z'), ['zsh']);
    t.ok((await ask('policy', 'simulate', '--config', '')).includes('balloonctl'), 'a file');
    t.same(await ask('set', 'web1', '--memory', ''), [], 'a size is nothing to complete');
  });
}
