import t from 'tap';
import { verdict, type Symptoms } from '../../src/daemon/verdict.js';

const MIB = 2 ** 20;
const healthy: Symptoms = {
  problem: null,
  state: 'running',
  now: 1_000_000,
  connectedAt: 0,
  movedAt: 0,
  targetBytes: 512 * MIB,
  actualBytes: 512 * MIB,
  guestFreeBytes: 64 * MIB,
  pinnedBy: null,
  silentRings: false,
};

void t.test('nothing is said of a VM that is well, or has had little time', (t) => {
  t.equal(verdict(healthy), null);
  t.equal(verdict({ ...healthy, actualBytes: 0, movedAt: 999_000 }), null);
  t.equal(verdict({ ...healthy, state: 'connected', connectedAt: 999_000 }), null);
  t.equal(verdict({ ...healthy, state: 'stopped', actualBytes: 0 }), null);
  t.end();
});

void t.test('each trouble has a sentence that says what to do', (t) => {
  t.equal(verdict({ ...healthy, problem: 'ring 0 is stopped' }), 'ring 0 is stopped');
  t.match(verdict({ ...healthy, state: 'connected' }), /no guest driver.*virtio_balloon/);
  t.match(verdict({ ...healthy, pinnedBy: '/dev/vfio/12' }), /has \/dev\/vfio\/12 open.*pins.*detached/);
  t.match(verdict({ ...healthy, silentRings: true }), /share=on/);
  t.match(
    verdict({ ...healthy, actualBytes: 256 * MIB }),
    /stopped at 256.* of 512.*64.*free.*smaller balloon/,
  );
  t.match(verdict({ ...healthy, targetBytes: 0 }), /stays at 512.*kernel log/);
  t.end();
});
