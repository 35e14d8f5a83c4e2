import { BUILTIN } from './inflate.js';
import { short, type Figures } from './inflate-figures.js';
import { barPlot, type Group } from './plot.js';

/** Times the built-in balloon that balloond is to reach, on 4 KiB pages. */
const GOAL_BACKING = '4 KiB shmem';
const GOALS = new Map([
  ['sequential', 16],
  ['runs of 16', 12],
  ['random 4 KiB', 3.5],
]);

/** A panel for each backing, a group for each pattern, a bar for each contender. */
export function inflatePlot(figures: readonly Figures[]): string {
  return barPlot({
    title:
      'Inflating: GiB/s from the first kick until the host has the memory, by backing, pattern and contender',
    unit: 'GiB/s',
    panels: unique(figures.map(({ backing }) => backing)).map((backing) => {
      const own = figures.filter((each) => each.backing === backing);
      return {
        name: backing,
        groups: unique(own.map(({ pattern }) => pattern)).map((pattern) =>
          group(
            pattern,
            backing,
            own.filter((each) => each.pattern === pattern),
          ),
        ),
      };
    }),
  });
}

function group(pattern: string, backing: string, figures: readonly Figures[]): Group {
  const times = backing === GOAL_BACKING ? GOALS.get(pattern) : undefined;
  const builtin = figures.find(({ contender }) => contender === BUILTIN)?.gibPerSecond ?? null;
  return {
    name: pattern,
    bars: figures.map((each) => ({
      series: each.contender,
      value: each.gibPerSecond,
      least: each.slowestGibPerSecond,
      most: each.fastestGibPerSecond,
      words: each.gibPerSecond === null ? 'none' : short(each.gibPerSecond),
    })),
    goal:
      times === undefined || builtin === null
        ? null
        : { value: times * builtin, words: `goal: ${times} x built-in` },
  };
}

function unique(values: readonly string[]): string[] {
  return [...new Set(values)];
}
