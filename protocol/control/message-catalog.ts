/** The journal's message catalog (systemd.io/CATALOG), made of the table of events: `journalctl -x` shows it. */
import { EVENT_IDS } from './event-ids.js';
import { EVENT_NAMES, EVENTS } from './events.js';

const DOCUMENTATION = 'Documentation: man:balloond(8)';

export function messageCatalog(): string {
  return EVENT_NAMES.map((name) => {
    const { help, action } = EVENTS[name];
    return [
      `-- ${EVENT_IDS[name]}`,
      `Subject: balloond: ${name}`,
      'Defined-By: balloond',
      DOCUMENTATION,
      '',
      plain(help),
      '',
      action === null ? 'Nothing is to be done.' : `What to do: ${plain(action)}`,
      '',
    ].join('\n');
  }).join('\n');
}

/** A catalog replaces @FIELD@ and knows no markup. */
function plain(text: string): string {
  return text.replaceAll('`', '').replaceAll('@', '');
}
