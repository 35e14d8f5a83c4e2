// What is claimed of a VM, whatever the shape of its memory and the state that it is in, against the guest's own word and the
// host's. The rest of the matrix is in truth-matrix.check.
import t from 'tap';
import { PLUG_STATES, SHAPES, STATES, tryShape } from '../support/truth.js';

/** All states with one shape, which can be unplugged; the others run alone. */
const EVERY_STATE = 'a DIMM that is plugged in later';

for (const [name, shape] of Object.entries(SHAPES)) {
  const states = name === EVERY_STATE ? { ...STATES, ...PLUG_STATES } : { running: STATES.running };
  void t.test(name, (t) => tryShape(t, shape, states));
}
