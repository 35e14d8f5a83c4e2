/** What every error of balloonctl and balloond has: a help to look at, a place to mend, or a verb that says what to do. */
export const NEXT_STEP =
  /: did you mean [^ ]+\?$|\(see balloon(ctl help( [a-z-]+)?|d --help)\)$|:\d+:\d+: |(: |; |, |, or )(add|allow|ask|check|choose|connect|create|do|end|follow|give|is another balloond|is balloond|let|load|look|mend|move|raise|reload|run|save|see|send|set|start|stop|try|update|use|write) /;
