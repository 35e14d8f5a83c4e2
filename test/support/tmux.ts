/** A real terminal, by tmux: what it shows after a program drew on it, its modes, keys and sizes. */
import { execFile } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { promisify } from 'node:util';

const run = promisify(execFile);
const TIMEOUT_MS = 60_000;

export class Tmux {
  readonly #folder = mkdtempSync(join(tmpdir(), 'tmux-'));

  private constructor() {
    // Its socket is in a folder of its own.
  }

  /** A shell runs `command` in a terminal of this size, then prints `ended CODE` and how the terminal is set, and stays. */
  static async start(command: string, columns = 80, rows = 24): Promise<Tmux> {
    const tmux = new Tmux();
    const shell = `${command}; echo "ended $?"; stty -a; exec sleep 600`;
    const size = ['-x', String(columns), '-y', String(rows)];
    await tmux.#tmux('-f', '/dev/null', 'new-session', '-d', '-s', 'test', ...size, '/bin/sh', '-c', shell);
    return tmux;
  }

  /** Lines of the screen without blanks at their ends, and without the empty ones below. */
  async screen(): Promise<string[]> {
    const text = await this.#tmux('capture-pane', '-p', '-t', 'test');
    return text
      .trimEnd()
      .split('\n')
      .map((line) => line.trimEnd());
  }

  /** The lines with the codes of their colours. */
  async painted(): Promise<string> {
    return this.#tmux('capture-pane', '-p', '-e', '-t', 'test');
  }

  /** Resolves with the screen once it is so and stays as it is for 100 ms: a frame may reach the terminal in parts. */
  async until(words: RegExp | ((screen: string[]) => boolean)): Promise<string[]> {
    const fits = (screen: string[]): boolean =>
      words instanceof RegExp ? words.test(screen.join('\n')) : words(screen);
    const deadline = performance.now() + TIMEOUT_MS;
    for (let before = ''; ;) {
      const screen = await this.screen();
      const now = screen.join('\n');
      if (now === before && fits(screen)) return screen;
      if (performance.now() > deadline) throw new Error(`never ${String(words)}:\n${now}`);
      before = now;
      await sleep(100);
    }
  }

  /** Keys by their names (tmux(1), KEY BINDINGS); what is none is typed. */
  async press(...keys: string[]): Promise<void> {
    await this.#tmux('send-keys', '-t', 'test', ...keys);
  }

  async type(text: string): Promise<void> {
    await this.#tmux('send-keys', '-t', 'test', '-l', '--', text);
  }

  async resize(columns: number, rows: number): Promise<void> {
    await this.#tmux('resize-window', '-t', 'test', '-x', String(columns), '-y', String(rows));
  }

  /** Whether a program has the other screen, and whether the cursor shows. */
  async modes(): Promise<{ alternate: boolean; cursor: boolean; wraps: boolean }> {
    const said = await this.#tmux(
      ...['display-message', '-p', '-t', 'test', '#{alternate_on} #{cursor_flag} #{wrap_flag}'],
    );
    const [alternate, cursor, wraps] = said.trim().split(' ');
    return { alternate: alternate === '1', cursor: cursor === '1', wraps: wraps === '1' };
  }

  /** The pid of the shell. */
  async pid(): Promise<number> {
    return Number(await this.#tmux('display-message', '-p', '-t', 'test', '#{pane_pid}'));
  }

  async close(): Promise<void> {
    await this.#tmux('kill-server').catch(() => undefined);
    rmSync(this.#folder, { recursive: true, force: true });
  }

  async #tmux(...args: string[]): Promise<string> {
    const env = { ...process.env, LC_ALL: 'C.UTF-8', TERM: 'xterm-256color', NO_COLOR: '' };
    const { stdout } = await run('tmux', ['-u', '-S', join(this.#folder, 'socket'), ...args], { env });
    return stdout;
  }
}
