const DIM = '\x1b[2m';
const BOLD = '\x1b[1m';
const RESET = '\x1b[0m';
const LEVELS: Readonly<Record<number, readonly [name: string, color: string]>> = {
  10: ['trace', DIM],
  20: ['debug', DIM],
  30: ['info', ''],
  40: ['warn', '\x1b[33m'],
  50: ['error', '\x1b[31m'],
  60: ['fatal', '\x1b[31m'],
};

/**
 * What pino wrote, for people: `12:00:01.250 warn  vm-throttled web-1: … {"tookMsPerSecond":400}` and a line end. The time
 * is UTC's.
 */
export function prettyLine(json: string, colored: boolean): string {
  const entry = JSON.parse(json) as {
    level: number;
    time: string;
    event?: string;
    vm?: string;
    message?: string;
  };
  const { level, time, event, vm, message = '', ...fields } = entry;
  const [name, color] = LEVELS[level] ?? [String(level), ''];
  const paint = (code: string, text: string): string =>
    colored && code !== '' ? `${code}${text}${RESET}` : text;
  return [
    time.slice(time.indexOf('T') + 1, -1),
    paint(color, name.padEnd(5)),
    ...(event === undefined ? [] : [event]),
    // The message begins with the name of the VM.
    vm !== undefined && message.startsWith(`${vm}: `)
      ? `${paint(BOLD, plain(vm))}${plain(message.slice(vm.length))}`
      : plain(message),
    ...(Object.keys(fields).length === 0 ? [] : [paint(DIM, plain(JSON.stringify(fields)))]),
  ]
    .join(' ')
    .concat('\n');
}

/** Names and reasons come from others: without control characters they cannot drive the terminal. */
function plain(text: string): string {
  return text.replace(/\p{Cc}/gu, '?');
}
