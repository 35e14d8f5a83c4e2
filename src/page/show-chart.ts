/** A chart of the page: axes with units and times, a cursor that keys move as well, and marks on its time line. */
import uPlot from 'uplot';
import { formatSize } from '../../protocol/control/size.js';
import type { Mark } from './marks.js';

export interface Line {
  readonly label: string;
  /** The custom property of page.css that has its colour. */
  readonly colour: string;
  readonly values: readonly (number | null)[];
  /** The area below the line is filled. */
  readonly filled?: boolean;
  readonly dashed?: boolean;
  /** In percent, on the right; else bytes, on the left. */
  readonly percent?: boolean;
}

interface Drawing {
  /** Milliseconds since the epoch. */
  readonly times: readonly number[];
  readonly lines: readonly Line[];
  /** The top of the chart in bytes. */
  readonly mostBytes: number;
  readonly marks: readonly Mark[];
}

const HEIGHT = { wide: 240, narrow: 190 } as const;
const NARROW = 600;
const MARK = { wide: 4, high: 9 } as const;
const MARK_COLOURS: Readonly<Record<Mark['kind'], string>> = {
  took: '--took',
  gave: '--gave',
  forced: '--forced',
  released: '--released',
};
/** The side of an axis, as uPlot numbers them. */
const RIGHT: object = { side: 1 };
/** Steps of the bytes on an axis. */
const BYTE_STEPS = Array.from({ length: 50 }, (_, power) => 2 ** power);

const clock = new Intl.DateTimeFormat('en-GB', { hour: '2-digit', minute: '2-digit' });
const clockSeconds = new Intl.DateTimeFormat('en-GB', {
  hour: '2-digit',
  minute: '2-digit',
  second: '2-digit',
});

/** A moment in the time of the browser. */
export function clockOf(time: number): string {
  return clockSeconds.format(time);
}

export class Chart {
  readonly #box: HTMLElement;
  readonly #onCursor: (at: number | null) => void;
  #plot: uPlot | null = null;
  /** The labels of the lines that the plot was made for: others need another plot. */
  #made = '';
  #drawing: Drawing = { times: [], lines: [], mostBytes: 1, marks: [] };

  /** `onCursor` hears at which sample the cursor is; null: nowhere. */
  constructor(box: HTMLElement, onCursor: (at: number | null) => void) {
    this.#box = box;
    this.#onCursor = onCursor;
    new ResizeObserver(() => this.#plot?.setSize(this.#size())).observe(box);
    matchMedia('(prefers-color-scheme: dark)').addEventListener('change', () => this.#make());
    box.addEventListener('keydown', (event) => this.#key(event));
  }

  draw(drawing: Drawing): void {
    this.#drawing = drawing;
    const made = drawing.lines.map(({ label }) => label).join('\n');
    if (this.#plot === null || made !== this.#made) {
      this.#made = made;
      this.#make();
    } else this.#plot.setData(this.#data());
  }

  #data(): uPlot.AlignedData {
    const { times, lines } = this.#drawing;
    return [times.map((time) => time / 1000), ...lines.map(({ values }) => [...values])];
  }

  #size(): { width: number; height: number } {
    const width = this.#box.clientWidth;
    return { width, height: width < NARROW ? HEIGHT.narrow : HEIGHT.wide };
  }

  #colour(property: string): string {
    return getComputedStyle(this.#box).getPropertyValue(property).trim();
  }

  #make(): void {
    this.#plot?.destroy();
    this.#plot = new uPlot(this.#options(), this.#data(), this.#box);
  }

  #options(): uPlot.Options {
    const { lines } = this.#drawing;
    const axis = {
      stroke: this.#colour('--text'),
      grid: { stroke: this.#colour('--grid'), width: 1 },
      ticks: { stroke: this.#colour('--grid'), width: 1, size: 4 },
      font: '12px system-ui, sans-serif',
    };
    const percent = lines.some((line) => line.percent === true);
    return {
      ...this.#size(),
      legend: { show: false },
      cursor: { y: false, drag: { x: false, y: false }, points: { show: false } },
      scales: {
        bytes: { range: () => [0, this.#drawing.mostBytes] },
        percent: { range: () => [0, 100] },
      },
      axes: [
        {
          ...axis,
          space: 64,
          size: 32,
          values: (_, splits, _axis, _space, step) =>
            splits.map((seconds) => (step < 60 ? clockSeconds : clock).format(seconds * 1000)),
        },
        {
          ...axis,
          scale: 'bytes',
          size: 64,
          space: 36,
          incrs: BYTE_STEPS,
          values: (_, splits) => splits.map((bytes) => formatSize(bytes)),
        },
        {
          ...axis,
          scale: 'percent',
          ...RIGHT,
          show: percent,
          size: 56,
          grid: { show: false },
          values: (_, splits) => splits.map((value) => `${value} %`),
        },
      ],
      series: [{}, ...lines.map((line) => this.#series(line))],
      hooks: {
        setCursor: [(plot) => this.#onCursor(plot.cursor.idx ?? null)],
        draw: [(plot) => this.#drawMarks(plot)],
      },
    };
  }

  #series({ label, colour, filled, dashed, percent }: Line): uPlot.Series {
    const stroke = this.#colour(colour);
    return {
      label,
      scale: percent === true ? 'percent' : 'bytes',
      stroke,
      width: filled === true ? 1 : 2,
      spanGaps: false,
      points: { show: false },
      ...(filled === true && { fill: stroke }),
      ...(dashed === true && { dash: [6, 4] }),
    };
  }

  /** Triangles at the foot of the chart: up where memory was given, down where it was taken. */
  #drawMarks(plot: uPlot): void {
    const { ctx, bbox } = plot;
    const scale = devicePixelRatio;
    const foot = bbox.top + bbox.height;
    for (const { time, kind } of this.#drawing.marks) {
      const x = plot.valToPos(time / 1000, 'x', true);
      if (x < bbox.left || x > bbox.left + bbox.width) continue;
      const up = kind === 'gave' || kind === 'released';
      const [tip, base] = up ? [foot - MARK.high * scale, foot] : [foot, foot - MARK.high * scale];
      ctx.beginPath();
      ctx.moveTo(x, tip);
      ctx.lineTo(x - MARK.wide * scale, base);
      ctx.lineTo(x + MARK.wide * scale, base);
      ctx.closePath();
      ctx.fillStyle = this.#colour(MARK_COLOURS[kind]);
      ctx.strokeStyle = this.#colour('--page');
      ctx.lineWidth = scale;
      ctx.stroke();
      ctx.fill();
    }
  }

  #key(event: KeyboardEvent): void {
    const plot = this.#plot;
    const { times } = this.#drawing;
    if (plot === null || times.length === 0) return;
    const last = times.length - 1;
    const now = plot.cursor.idx ?? last;
    const to = {
      ArrowLeft: now - 1,
      ArrowRight: now + 1,
      PageUp: now - 30,
      PageDown: now + 30,
      Home: 0,
      End: last,
    }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    const at = Math.min(last, Math.max(0, to));
    plot.setCursor({ left: plot.valToPos((times[at] ?? 0) / 1000, 'x'), top: 1 });
  }
}
