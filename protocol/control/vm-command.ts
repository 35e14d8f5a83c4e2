/**
 * A command of balloonctl about a VM, as an operator types it: `words` (such as `balloonctl limit`), the name and `options`. A
 * name that begins with `-` stands last, behind `--`, or balloonctl would take the name for an option.
 */
export function vmCommand<Words extends string>(
  words: Words,
  name: string,
  options = '',
): `${Words} ${string}` {
  const more = options === '' ? '' : ` ${options}`;
  return `${words} ${name.startsWith('-') ? `${options}${options && ' '}-- ${name}` : `${name}${more}`}`;
}
