/**
 * Families of samples in Prometheus' text format (exposition formats, 0.0.4). Written here, since the libraries that do it
 * make objects of every sample: a thousand VMs took prom-client more than ten times as long.
 */
type FamilyType = 'gauge' | 'counter' | 'histogram';

/** Text is made bytes before there is much of it: long strings in parts are what collecting garbage takes longest for. */
const CHUNK_CHARACTERS = 4096;

export class Family {
  readonly #name: string;
  readonly #bytes: Buffer[] = [];
  #text: string;

  /** `help` is one line without backslashes. */
  constructor(name: string, type: FamilyType, help: string) {
    this.#name = name;
    this.#text = `# HELP ${name} ${help}\n# TYPE ${name} ${type}\n`;
  }

  /** `labels`: as label() makes them, joined by commas; or empty. */
  add(labels: string, value: number): void {
    this.#append(`${this.#name}${labels === '' ? '' : `{${labels}}`} ${number(value)}\n`);
  }

  addHistogram(
    labels: string,
    boundsSeconds: readonly number[],
    counts: readonly number[],
    sum: number,
  ): void {
    const bucket = `${this.#name}_bucket{${labels === '' ? '' : `${labels},`}le="`;
    const braced = labels === '' ? '' : `{${labels}}`;
    const total = counts.at(-1) ?? 0;
    let text = '';
    for (let at = 0; at < boundsSeconds.length; at++)
      text += `${bucket}${boundsSeconds[at]}"} ${counts[at]}\n`;
    this.#append(
      `${text}${bucket}+Inf"} ${total}\n${this.#name}_sum${braced} ${number(sum)}\n${this.#name}_count${braced} ${total}\n`,
    );
  }

  /** All of it; nothing may be added behind this. */
  bytes(): readonly Buffer[] {
    this.#flush();
    return this.#bytes;
  }

  #append(text: string): void {
    this.#text += text;
    if (this.#text.length >= CHUNK_CHARACTERS) this.#flush();
  }

  #flush(): void {
    this.#bytes.push(Buffer.from(this.#text));
    this.#text = '';
  }
}

export function label(name: string, value: string): string {
  const escaped = /["\\\n]/.test(value)
    ? value.replaceAll('\\', '\\\\').replaceAll('"', '\\"').replaceAll('\n', '\\n')
    : value;
  return `${name}="${escaped}"`;
}

function number(value: number): string {
  return value === Infinity ? '+Inf' : String(value);
}
