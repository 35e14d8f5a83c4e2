/** How far up the stack to look. */
const FRAMES = 12;
/** Functions that only hand an event on. */
const FORWARDS = /(^|[.#])emit$/;

export interface CodeLocation {
  file: string;
  line: number;
  /** Null outside functions. */
  function: string | null;
}

/** Where the event that is being emitted comes from: the first function with a name that called emit(). */
export function emitterOf(): CodeLocation | null {
  const sites = callSites();
  const emitted = sites.findIndex((site) => FORWARDS.test(site.getFunctionName() ?? ''));
  if (emitted < 0) return null;
  const callers = sites.slice(emitted + 1).filter((site) => !FORWARDS.test(site.getFunctionName() ?? ''));
  const site = callers.find((caller) => caller.getFunctionName() !== null) ?? callers[0];
  if (site === undefined) return null;
  return {
    file: (site.getFileName() ?? '').replace(/^file:\/\//, ''),
    line: site.getLineNumber() ?? 0,
    function: site.getFunctionName(),
  };
}

function callSites(): readonly NodeJS.CallSite[] {
  const stacks: { prepareStackTrace?: unknown; stackTraceLimit: number } = Error;
  const { prepareStackTrace, stackTraceLimit } = stacks;
  const holder: { stack?: unknown } = {};
  try {
    stacks.stackTraceLimit = FRAMES;
    stacks.prepareStackTrace = (_: unknown, sites: unknown) => sites;
    Error.captureStackTrace(holder, callSites);
    return holder.stack as readonly NodeJS.CallSite[];
  } finally {
    stacks.prepareStackTrace = prepareStackTrace;
    stacks.stackTraceLimit = stackTraceLimit;
  }
}
