import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { deviceOptions, offeredBits, readConfigFile, SettingsError } from '../../src/daemon/settings.js';
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
  });
  t.same(deviceOptions(config, socket, 'db-7'), {
    kind: 'balloon',
    features: [],
    statsIntervalSeconds: 0,
    discardDelaySeconds: 0.05,
    sharedCgroup: false,
  });
  t.equal(deviceOptions({}, null, 'x').features.length, 6);
  const cache = deviceOptions(config, { path: '/c', device: 'cache-balloon' }, 'other');
  t.equal(cache.kind, 'cache-balloon');
  t.equal(cache.features.length, 3, 'of a page cache balloon its own alone');
  t.end();
});

void t.test('a wrong file is one line with its place', (t) => {
  const folder = t.testdir();
  const wrong: [string, RegExp][] = [
    ['control = ', /:1:\d+: /],
    ['control = "/c"\n  contrl = "x"', /:2:3: contrl is unknown: see/],
    ['[[socket]]\nname = "x"', /:1:1: socket\.0 .*path/],
    [
      '[[socket]]\npath = "/x"\nfeatures = ["VIRTIO_BALLOON_F_NONE"]',
      /:3:1: socket\.0\.features\.0 must be one of/,
    ],
    ['log-level = "loud"', /:1:1: log-level must be one of trace, debug, info, warn, error, fatal/],
    [
      '[[vm]]\nmatch = "*"\n[[vm]]\nmatch = "a"\n discard-delay = 1',
      /:5:2: vm\.1\.discard-delay must be <= 0.05/,
    ],
    ['control = """\nlog-level = 1\n"""\nlog-level = 2', /:4:1: log-level/],
    ['socket = 3', /:1:1: socket must be array/],
    ['control = "/c"\nmetrics = "9797"', /:2:1: metrics is no address: give HOST:PORT/],
    ['[[socket]]\npath = "/a"\n[[socket]]\npath = "/a"', /:4:1: socket\.1\.path is that of another/],
    ['[policy]\nmode = "force"', /:2:1: policy\.mode/],
    ['[policy]\nreserve = "many"', /:2:1: policy\.reserve "many" is no amount/],
    ['[policy]\ndefault-band = "lead"', /:2:1: policy\.default-band names no band: .*gold/],
    ['[[policy.band]]\nname = "a"\nmin = "60%"\nmax = "50%"', /:3:1: policy\.band\.0\.min .*above max/],
    ['[[policy.band]]\nname = "a"\n[[policy.band]]\nname = "a"', /:4:1: policy\.band\.1\.name/],
    [
      '[[policy.band]]\nname = "a"\nmatch = ["db-*"]\n[[policy.band]]\nname = "b"\nmatch = ["*-test"]',
      /:6:1: policy\.band\.1\.match .*"db-test".*"db-\*"/,
    ],
  ];
  wrong.forEach(([text, expected], n) => {
    const file = join(folder, `${n}.toml`);
    writeFileSync(file, text);
    try {
      readConfigFile(file);
      t.fail(`accepted: ${text}`);
    } catch (error) {
      t.type(error, SettingsError);
      const message = error instanceof Error ? error.message : '';
      t.match(message, expected);
      t.notMatch(message, /\n/);
    }
  });
  t.throws(() => readConfigFile(join(folder, 'none')), SettingsError);
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
  t.equal(offeredBits(deviceOptions({}, null, 'x').features), rings + 63n);
  t.end();
});
