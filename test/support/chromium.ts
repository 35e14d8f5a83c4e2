// A headless Chromium, told what to do over a pipe (--remote-debugging-pipe: JSON texts that end in a zero byte).
import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Readable, Writable } from 'node:stream';
import { setTimeout as sleep } from 'node:timers/promises';

interface Message {
  id?: number;
  method?: string;
  params?: Record<string, unknown>;
  result?: unknown;
  error?: { message: string };
}

export class Chromium {
  /** What the page complained of: errors of scripts, and what its policy kept out. */
  readonly complaints: string[] = [];
  readonly #folder: string;
  readonly #child: ChildProcess;
  readonly #waiting = new Map<
    number,
    { resolve: (result: unknown) => void; reject: (error: Error) => void }
  >();
  #session: string | null = null;
  #last = 0;
  #rest = '';

  private constructor(folder: string, child: ChildProcess) {
    this.#folder = folder;
    this.#child = child;
    const output = child.stdio[4] as Readable;
    output.setEncoding('utf8');
    output.on('data', (text: string) => this.#received(text));
  }

  /** `program`: chromium or chromium-headless-shell. It shows an empty page of that size. */
  static async start(program: string, width: number, height: number): Promise<Chromium> {
    const folder = mkdtempSync(join(tmpdir(), 'balloond-chromium-'));
    const args = ['--headless', '--no-sandbox', '--disable-gpu', '--remote-debugging-pipe'];
    args.push(`--user-data-dir=${folder}`, `--window-size=${width},${height}`, 'about:blank');
    const child = spawn('setpriv', ['--pdeathsig', 'KILL', program, ...args], {
      stdio: ['ignore', 'ignore', 'ignore', 'pipe', 'pipe'],
    });
    const chromium = new Chromium(folder, child);
    const { targetInfos } = (await chromium.call('Target.getTargets')) as {
      targetInfos: { targetId: string; type: string }[];
    };
    const targetId = targetInfos.find(({ type }) => type === 'page')?.targetId;
    const attached = await chromium.call('Target.attachToTarget', { targetId, flatten: true });
    chromium.#session = (attached as { sessionId: string }).sessionId;
    for (const domain of ['Page', 'Runtime', 'Log']) await chromium.call(`${domain}.enable`);
    await chromium.size(width, height);
    return chromium;
  }

  async size(width: number, height: number): Promise<void> {
    const metrics = { width, height, deviceScaleFactor: 1, mobile: false };
    await this.call('Emulation.setDeviceMetricsOverride', metrics);
  }

  async colours(scheme: 'light' | 'dark'): Promise<void> {
    const features = [{ name: 'prefers-color-scheme', value: scheme }];
    await this.call('Emulation.setEmulatedMedia', { features });
  }

  /** Presses a key as a person would: `key` by its name in events, with `text` where it writes a letter. */
  async press(key: string, text?: string): Promise<void> {
    const code = text === undefined ? {} : { text };
    await this.call('Input.dispatchKeyEvent', { type: 'keyDown', key, ...code });
    await this.call('Input.dispatchKeyEvent', { type: 'keyUp', key });
  }

  call(method: string, params: Record<string, unknown> = {}): Promise<unknown> {
    const id = ++this.#last;
    const session = this.#session === null ? {} : { sessionId: this.#session };
    (this.#child.stdio[3] as Writable).write(`${JSON.stringify({ id, method, params, ...session })}\0`);
    return new Promise((resolve, reject) => this.#waiting.set(id, { resolve, reject }));
  }

  /** The value of an expression in the page, or what it promises. */
  async evaluate(expression: string): Promise<unknown> {
    const how = { expression, returnByValue: true, awaitPromise: true };
    const { result } = (await this.call('Runtime.evaluate', how)) as { result: { value?: unknown } };
    return result.value;
  }

  async until(expression: string, timeoutMs = 20_000): Promise<void> {
    for (const end = performance.now() + timeoutMs; (await this.evaluate(expression)) !== true;) {
      if (performance.now() > end) throw new Error(`never: ${expression}; ${this.complaints.join('; ')}`);
      await sleep(50);
    }
  }

  /** `whole`: also of what is below the window. */
  async picture(whole = false): Promise<Buffer> {
    const how = { format: 'png', captureBeyondViewport: whole };
    const { data } = (await this.call('Page.captureScreenshot', how)) as { data: string };
    return Buffer.from(data, 'base64');
  }

  async stop(): Promise<void> {
    if (this.#child.exitCode === null) {
      const ended = once(this.#child, 'exit');
      this.#session = null;
      await Promise.race([this.call('Browser.close'), ended]);
      await ended;
    }
    // Processes that it started may still have the other ends.
    for (const stream of this.#child.stdio) stream?.destroy();
    rmSync(this.#folder, { recursive: true, force: true, maxRetries: 5 });
  }

  #received(text: string): void {
    const messages = (this.#rest + text).split('\0');
    this.#rest = messages.pop() ?? '';
    for (const each of messages) {
      const { id, method, params, result, error } = JSON.parse(each) as Message;
      if (method === 'Runtime.exceptionThrown' || method === 'Log.entryAdded') {
        this.complaints.push(JSON.stringify(params));
      }
      const waiting = id === undefined ? undefined : this.#waiting.get(id);
      if (id === undefined || waiting === undefined) continue;
      this.#waiting.delete(id);
      if (error === undefined) waiting.resolve(result);
      else waiting.reject(new Error(error.message));
    }
  }
}
