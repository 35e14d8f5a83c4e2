// As the suite's test of four VMs, with ten.
import t from 'tap';
import { manyVms } from '../support/many-vms.js';

t.setTimeout(0);

void t.test('two and ten VMs at once, and one killed in the middle of an inflate', (t) => manyVms(t, 10));
