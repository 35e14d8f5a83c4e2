// All shapes of memory in all states, against the words of guest and host: the whole of the matrix of truth.test.
import t from 'tap';
import { MORE_SHAPES, PLUG_STATES, SHAPES, STATES, tryShape } from '../support/truth.js';

t.setTimeout(0);

for (const [name, shape] of Object.entries({ ...SHAPES, ...MORE_SHAPES })) {
  const states = shape.slots === true ? { ...STATES, ...PLUG_STATES } : STATES;
  void t.test(name, (t) => tryShape(t, shape, states));
}
