// A real Prometheus that scrapes a daemon, and promtool.
import { spawn, spawnSync, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createServer, type AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { PATIENCE_MS } from './deadline.js';

const ROOT = join(import.meta.dirname, '../../..');
export const RULES = join(ROOT, 'deploy/prometheus/balloond.rules.yml');
export const RULES_TEST = join(ROOT, 'deploy/prometheus/balloond.rules.test.yml');
export const DASHBOARD = join(ROOT, 'deploy/grafana/balloond.json');

/** Throws with what the script said when there can be none. */
export function prometheusFolder(): string {
  const { status, stdout, stderr } = spawnSync('sh', [join(ROOT, 'scripts/prometheus-lab')], {
    encoding: 'utf8',
  });
  if (status !== 0) throw new Error(stderr);
  return stdout.trim();
}

export function promtool(args: string[], input = ''): { status: number | null; output: string } {
  const { status, stdout, stderr } = spawnSync(join(prometheusFolder(), 'promtool'), args, {
    encoding: 'utf8',
    input,
  });
  return { status, output: stdout + stderr };
}

export interface Series {
  readonly metric: Readonly<Record<string, string>>;
  readonly value: readonly [number, string];
}

export class Prometheus {
  readonly #folder: string;
  readonly #child: ChildProcess;
  readonly #url: string;

  private constructor(folder: string, child: ChildProcess, url: string) {
    this.#folder = folder;
    this.#child = child;
    this.#url = url;
  }

  /** Scrapes the metrics at `target` (host:port) twice a second. */
  static async start(target: string): Promise<Prometheus> {
    const folder = mkdtempSync(join(tmpdir(), 'balloond-prometheus-'));
    const port = await freePort();
    const config = {
      global: { scrape_interval: '500ms', evaluation_interval: '1s' },
      rule_files: [RULES],
      scrape_configs: [{ job_name: 'balloond', static_configs: [{ targets: [target] }] }],
    };
    writeFileSync(join(folder, 'prometheus.yml'), JSON.stringify(config));
    const args = [
      `--config.file=${join(folder, 'prometheus.yml')}`,
      `--storage.tsdb.path=${join(folder, 'data')}`,
      `--web.listen-address=127.0.0.1:${port}`,
      '--log.level=warn',
    ];
    const child = spawn('setpriv', ['--pdeathsig', 'KILL', join(prometheusFolder(), 'prometheus'), ...args], {
      stdio: ['ignore', 'ignore', 'inherit'],
    });
    const prometheus = new Prometheus(folder, child, `http://127.0.0.1:${port}`);
    const end = performance.now() + PATIENCE_MS;
    while (!(await prometheus.#ready())) {
      if (performance.now() > end || child.exitCode !== null) {
        await prometheus.stop();
        throw new Error('prometheus does not start');
      }
      await sleep(50);
    }
    return prometheus;
  }

  async query(expression: string): Promise<Series[]> {
    const data = await this.get(`/api/v1/query?query=${encodeURIComponent(expression)}`);
    return (data as { result: Series[] }).result;
  }

  /** The `data` of an answer. */
  async get(path: string): Promise<unknown> {
    const answer = (await (await fetch(this.#url + path)).json()) as { status: string; data: unknown };
    if (answer.status !== 'success') throw new Error(`${path}: ${JSON.stringify(answer)}`);
    return answer.data;
  }

  async stop(): Promise<void> {
    if (this.#child.exitCode === null) {
      this.#child.kill('SIGKILL');
      await once(this.#child, 'exit');
    }
    rmSync(this.#folder, { recursive: true, force: true });
  }

  async #ready(): Promise<boolean> {
    try {
      return (await fetch(`${this.#url}/-/ready`)).ok;
    } catch {
      return false;
    }
  }
}

async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  server.close();
  await once(server, 'close');
  return port;
}
