/** How many VMs fit a host under each policy, over several fleets: as a table and as a picture. */
import { COLOURS, columns } from './report.js';
import type { PolicyName } from './planners.js';
import type { MixtureName } from './workload.js';

export interface CapacityRow {
  readonly mixture: MixtureName;
  readonly policy: PolicyName;
  /** VMs a host, one for each seed, in order of size. */
  readonly counts: readonly number[];
  /** The weighted work on hosts with as many VMs as balloond's policy holds, one for each seed, in order of size. */
  readonly works: readonly number[];
}

export function capacityTable(rows: readonly CapacityRow[], seeds: number): string {
  const header = ['fleet', 'policy', `VMs a host, median of ${seeds}`, 'range', 'weighted work', 'range'];
  const percent = (share = NaN): string => `${(100 * share).toFixed(1)} %`;
  const lines = rows.map(({ mixture, policy, counts, works }) => [
    mixture,
    policy,
    String(median(counts)),
    `${counts[0] ?? 0} to ${counts.at(-1) ?? 0}`,
    percent(median(works)),
    `${percent(works[0])} to ${percent(works.at(-1))}`,
  ]);
  return columns([header, ...lines]);
}

function median(sorted: readonly number[]): number {
  return sorted[Math.floor((sorted.length - 1) / 2)] ?? 0;
}

const WIDTH = 860;
const LEFT = 230;
const ROW = 26;

/** A bar from the least to the most for each policy and mixture, a mark at the median. */
export function plotCapacities(rows: readonly CapacityRow[]): string {
  const most = Math.max(10, ...rows.flatMap(({ counts }) => counts));
  const x = (count: number): number => LEFT + (count / most) * (WIDTH - LEFT - 60);
  const height = 70 + rows.length * ROW + new Set(rows.map(({ mixture }) => mixture)).size * ROW;
  const policies = [...new Set(rows.map(({ policy }) => policy))];
  const lines: string[] = [];
  let y = 50;
  let before: MixtureName | null = null;
  for (const { mixture, policy, counts } of rows) {
    if (mixture !== before) {
      lines.push(`<text x="20" y="${y}" font-weight="600">${mixture} fleet</text>`);
      y += ROW;
      before = mixture;
    }
    const colour = COLOURS[policies.indexOf(policy) % COLOURS.length] ?? '';
    const from = x(counts[0] ?? 0);
    const to = x(counts.at(-1) ?? 0);
    const middle = x(median(counts));
    lines.push(
      `<text x="${LEFT - 10}" y="${y}" text-anchor="end">${policy}</text>`,
      `<path d="M${from.toFixed(1)} ${y - 4}H${to.toFixed(1)}" stroke="${colour}" stroke-width="4"/>`,
      `<circle cx="${middle.toFixed(1)}" cy="${y - 4}" r="6" fill="${colour}"/>`,
      `<text x="${(to + 12).toFixed(1)}" y="${y}">${median(counts)}</text>`,
    );
    y += ROW;
  }
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} ${height}" width="${WIDTH}" height="${height}" font-family="system-ui, 'DejaVu Sans', sans-serif" font-size="12" fill="#24292f">`,
    `<rect width="${WIDTH}" height="${height}" rx="8" fill="#ffffff"/>`,
    `<text x="20" y="24" font-weight="600">VMs on a host: median (dot) and range</text>`,
    `<path d="M${LEFT} 36V${height - 14}" stroke="#8c959f"/>`,
    ...lines,
    '</svg>\n',
  ].join('\n');
}
