import { STEP_VERBS } from '../../protocol/control/refusal.js';

/** What every error of balloonctl and balloond has: a help to look at, a place to mend, or a verb that says what to do. */
export const NEXT_STEP = new RegExp(
  [
    ': did you mean [^ ]+\\?$',
    '\\(see balloon(ctl help( [a-z-]+)?|d --help)\\)$',
    ':\\d+:\\d+: ',
    `(: |; |, |, or )(is another balloond|is balloond|${STEP_VERBS.join('|')}) `,
  ].join('|'),
);
