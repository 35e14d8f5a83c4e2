import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { readConfigFile } from '../../src/daemon/config/read.js';
import { deviceOptions } from '../../src/daemon/settings.js';
import { offeredBits } from '../../src/vm/kinds.js';
import { globMatches } from '../../src/policy/glob.js';

void t.test('a configuration file is read, and the most particular setting wins', (t) => {
  const file = join(t.testdir(), 'balloond.toml');
  writeFileSync(
    file,
    `control = "/tmp/c.sock"
[[socket]]
path = "/tmp/v.sock"
name = "web-1"
features = ["VIRTIO_BALLOON_F_STATS_VQ"]
[[vm]]
match = "db-*"
features = []
stats-interval = 0
discard-delay = 0.05
discard-untold-huge-pages = true
`,
  );
  const config = readConfigFile(file);
  const socket = config.socket?.[0] ?? null;
  t.equal(config.control, '/tmp/c.sock');
  t.same(deviceOptions(config, socket, 'web-1'), {
    kind: 'balloon',
    features: ['VIRTIO_BALLOON_F_STATS_VQ'],
    statsIntervalSeconds: 10,
    discardDelaySeconds: 0.01,
    sharedCgroup: false,
    discardsUntold: false,
  });
  t.same(deviceOptions(config, socket, 'db-7'), {
    kind: 'balloon',
    features: [],
    statsIntervalSeconds: 0,
    discardDelaySeconds: 0.05,
    sharedCgroup: false,
    discardsUntold: true,
  });
  t.equal(deviceOptions({}, null, 'x').features.length, 9);
  const cache = deviceOptions(config, { path: '/c', device: 'cache-balloon' }, 'other');
  t.equal(cache.kind, 'cache-balloon');
  t.equal(cache.features.length, 3, 'of a page cache balloon its own alone');
  t.end();
});

void t.test('patterns for names', (t) => {
  t.ok(globMatches('db-*', 'db-'));
  t.ok(globMatches('db-?', 'db-1'));
  t.notOk(globMatches('db-?', 'db-12'));
  t.notOk(globMatches('a.b', 'axb'), 'a dot is a dot');
  t.end();
});

void t.test('a packed ring is offered only where asked for', (t) => {
  const rings = 2n ** 28n + 2n ** 29n + 2n ** 32n;
  t.equal(offeredBits(['VIRTIO_BALLOON_F_STATS_VQ']), rings + 2n);
  t.equal(offeredBits(['VIRTIO_F_RING_PACKED']), rings + 2n ** 34n);
  t.equal(offeredBits(deviceOptions({}, null, 'x').features), rings + 63n + (7n << 16n));
  t.end();
});
