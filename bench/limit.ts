import { ensureLab } from '../test/support/lab/lab.js';
import { limits, measure } from './inflate.js';
import { reportInflate } from './inflate-figures.js';

/** The limits of the host alone, in a fraction of the time. */
reportInflate('limit', await measure(await ensureLab(), limits, { backing: '', pattern: '' }));
