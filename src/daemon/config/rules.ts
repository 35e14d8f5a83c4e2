/** What a JSON Schema cannot say of a configuration: what belongs together, and what this machine has. */
import { refusal, type RefusalText } from '../../../protocol/control/refusal.js';
import { lackedUnit } from '../../../protocol/control/size.js';
import { dirname, isAbsolute, resolve } from 'node:path';
import type { Standing } from '../../os/errors.js';
import { standingAt } from '../../os/socket.js';
import { amountOf, amountOrNull, policyMistakes, type Amount } from '../../policy/settings.js';
import { ADDRESS_FORM, readAddress, type ConfigFile } from '../settings.js';
import type { ShapeMistake } from './shape.js';

/** What sun_path holds beside its terminating NUL. */
const MAX_PATH_BYTES = 107;

/** A Unix socket that the daemon is to listen on. */
export interface WantedPath {
  readonly path: string;
  /** Its key in the configuration, or the flag that names it. */
  readonly where: readonly string[];
}

const RELATIVE = refusal('is relative, and the folder of a service is /', 'give a path that begins with /');

/** Mistakes of the document alone, whichever machine reads it. */
export function documentMistakes(config: ConfigFile): ShapeMistake[] {
  const mistakes: ShapeMistake[] = policyMistakes(config).map(({ where, what }) => ({
    where: where.split('.'),
    what,
  }));
  if (config.metrics !== undefined && readAddress(config.metrics) === null) {
    mistakes.push({ where: ['metrics'], what: refusal('is no address', ADDRESS_FORM) });
  }
  return [...mistakes, ...adoptMistakes(config), ...orderMistakes(config)];
}

function adoptMistakes(config: ConfigFile): ShapeMistake[] {
  const { qmp = [] } = config;
  const paths = qmp.map(({ path }) => path as string | undefined);
  const { bus, domains } = config.libvirt ?? {};
  return [
    ...paths.flatMap((path, n) => {
      const what = path === undefined ? null : patternMistake(path);
      return what === null ? [] : [{ where: ['qmp', String(n), 'path'], what }];
    }),
    ...(domains?.length === 0
      ? [
          {
            where: ['libvirt', 'domains'],
            what: refusal('names no domain', 'take it out for all domains, or write their names'),
          },
        ]
      : []),
    ...(bus === undefined || isAbsolute(bus) ? [] : [{ where: ['libvirt', 'bus'], what: RELATIVE }]),
  ];
}

function patternMistake(path: string): RefusalText | null {
  if (!isAbsolute(path)) return RELATIVE;
  const [foreign] = /[[\]{}]|\*\*/.exec(path) ?? [];
  if (foreign === undefined) return null;
  return refusal(
    `has ${foreign}, which stands for no letters in these patterns`,
    'use * or ?, or write one [[qmp]] for each path',
  );
}

/** Orders of [[vm]] that contradict each other, or what else the same table says. */
function orderMistakes({ vm = [] }: ConfigFile): ShapeMistake[] {
  return vm.flatMap(({ target, policy, min, max }, n) => {
    const mistake = (key: string, what: RefusalText): ShapeMistake => ({
      where: ['vm', String(n), key],
      what,
    });
    if (target === undefined) return [];
    const amount = amountOrNull(target);
    if (amount === null)
      return [mistake('target', refusal(`"${target}" is no amount`, 'write a size, or a percentage of RAM'))];
    if ('share' in amount && amount.share > 1)
      return [mistake('target', refusal(`"${target}" is more than 100%`, 'lower it'))];
    const meant = lackedUnit(target);
    if (meant !== null)
      return [mistake('target', refusal(`(${target}) is ${target} bytes`, `did you mean ${meant}?`))];
    const mistakes: ShapeMistake[] = [];
    if (policy === 'auto') {
      mistakes.push(
        mistake(
          'policy',
          refusal('"auto" contradicts target, which keeps the policy away', 'take one of the two out'),
        ),
      );
    }
    if (isLess(amount, amountOrNull(min))) {
      mistakes.push(
        mistake('target', refusal(`(${target}) is below min (${min ?? ''})`, 'raise target or lower min')),
      );
    }
    if (isLess(amountOrNull(max), amount)) {
      mistakes.push(
        mistake('target', refusal(`(${target}) is above max (${max ?? ''})`, 'lower target or raise max')),
      );
    }
    return mistakes;
  });
}

/** Whether this is so for every VM: a size and a share cannot be compared before there is one. */
function isLess(a: Amount | null, b: Amount | null): boolean {
  if (a === null || b === null || 'share' in a !== 'share' in b) return false;
  return amountOf(a, 1) < amountOf(b, 1);
}

/** Mistakes of paths that are to be listened on, as far as they show without listening. */
export function pathMistakes(wanted: readonly WantedPath[]): ShapeMistake[] {
  return wanted.flatMap(({ path, where }, n) => {
    const twin = wanted.slice(0, n).find((other) => resolve(other.path) === resolve(path));
    // A shell's folder is not the service's.
    const relative = !where[0]?.startsWith('--') && !isAbsolute(path);
    const what = relative
      ? RELATIVE
      : twin === undefined
        ? pathMistake(path)
        : refusal(`is the path of ${nameOf(twin)} as well`, 'give each its own');
    return what === null ? [] : [{ where, what }];
  });
}

function nameOf({ where: [key = '', ...more], path }: WantedPath): string {
  return more.length === 0 ? `${key} (${path})` : `another [[socket]] (${path})`;
}

function pathMistake(path: string): RefusalText | null {
  const bytes = Buffer.byteLength(path);
  if (bytes > MAX_PATH_BYTES)
    return refusal(`has ${bytes} bytes`, `give a path of at most ${MAX_PATH_BYTES} bytes`);
  const folder = dirname(path);
  const parent = standingAt(folder);
  if (parent === 'nothing')
    return refusal(`lies in ${folder}, which does not exist`, 'create its folder first');
  if (parent !== 'folder' && parent !== 'hidden')
    return refusal(`lies in ${folder}, which is no folder`, 'give another path');
  return TAKEN[standingAt(path)] ?? null;
}

const TAKEN: Readonly<Partial<Record<Standing, RefusalText>>> = {
  folder: refusal('is a folder', 'give the path of a file in it'),
  link: refusal('is a symbolic link that leads nowhere', 'move it away, or give another path'),
  file: refusal('is a file and no socket', 'move it away, or give another path'),
};
