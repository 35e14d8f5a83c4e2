type Options = Record<string, string | undefined>;

/**
 * The values of each `-name` on QEMU's command line, whose words end with NULs. `first`: the key of a value that begins without one. A
 * property of JSON that is no text is here as JSON writes it. Empty where the command line is unknown.
 */
export function qemuOptions(commandLine: string | null, name: string, first: string): Options[] {
  const words = commandLine?.split('\0') ?? [];
  return words
    .flatMap((word, n) => (word === `-${name}` || word === `--${name}` ? (words[n + 1] ?? []) : []))
    .map((value) => optionsOf(value, first));
}

/** `key=value,…`, of which the first value may come without its key; or one JSON object. A comma in a value comes twice there. */
function optionsOf(text: string, first: string): Options {
  if (text.startsWith('{')) {
    try {
      const parsed = JSON.parse(text) as Record<string, unknown>;
      return Object.fromEntries(Object.entries(parsed).map(([key, value]) => [key, String(value)]));
    } catch {
      return {};
    }
  }
  const options = text.split(/(?<!,),(?!,)/).map((escaped, n) => {
    const option = escaped.replaceAll(',,', ',');
    const at = option.indexOf('=');
    if (at < 0) return n === 0 ? ([first, option] as const) : ([option, 'on'] as const);
    return [option.slice(0, at), option.slice(at + 1)] as const;
  });
  return Object.fromEntries(options);
}
