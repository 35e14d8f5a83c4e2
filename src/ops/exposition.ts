/**
 * Families of samples in Prometheus' text format (exposition formats, 0.0.4). Written here, since the libraries that do it
 * make objects of every sample: a thousand VMs took prom-client more than ten times as long.
 */
export type FamilyType = 'gauge' | 'counter' | 'histogram';

export class Family {
  readonly #name: string;
  #text: string;

  /** `help` is one line without backslashes. */
  constructor(name: string, type: FamilyType, help: string) {
    this.#name = name;
    this.#text = `# HELP ${name} ${help}\n# TYPE ${name} ${type}\n`;
  }

  /** `labels`: as label() makes them, joined by commas; or empty. */
  add(labels: string, value: number): void {
    this.#text += `${this.#name}${labels === '' ? '' : `{${labels}}`} ${number(value)}\n`;
  }

  addHistogram(
    labels: string,
    boundsSeconds: readonly number[],
    counts: readonly number[],
    sum: number,
  ): void {
    const rest = labels === '' ? '' : `${labels},`;
    const braced = labels === '' ? '' : `{${labels}}`;
    const total = counts.at(-1) ?? 0;
    let text = '';
    for (const [at, bound] of boundsSeconds.entries()) {
      text += `${this.#name}_bucket{${rest}le="${bound}"} ${counts[at] ?? 0}\n`;
    }
    text += `${this.#name}_bucket{${rest}le="+Inf"} ${total}\n`;
    this.#text += `${text}${this.#name}_sum${braced} ${number(sum)}\n${this.#name}_count${braced} ${total}\n`;
  }

  toString(): string {
    return this.#text;
  }
}

export function label(name: string, value: string): string {
  const escaped = value.replaceAll('\\', '\\\\').replaceAll('"', '\\"').replaceAll('\n', '\\n');
  return `${name}="${escaped}"`;
}

function number(value: number): string {
  return value === Infinity ? '+Inf' : String(value);
}
