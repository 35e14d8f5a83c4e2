/** That of `all` which the option names. Throws where it names none of them. */
export function oneOf<T extends string>(option: string, all: readonly T[], named: string): T {
  const found = all.find((one) => one === named);
  if (found === undefined)
    throw new Error(`${option} ${named}: it is one of ${all.map((one) => `'${one}'`).join(', ')}`);
  return found;
}

/** Those of `all` that the option names, with commas between them, or all without the option. Throws where one is none of them. */
export function someOf<T extends string>(
  option: string,
  all: readonly T[],
  named: string | undefined,
): readonly T[] {
  if (named === undefined) return all;
  const chosen = named.split(',').map((one) => oneOf(option, all, one));
  return all.filter((one) => chosen.includes(one));
}
