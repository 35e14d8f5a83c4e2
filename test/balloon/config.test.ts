import t from 'tap';
import { BalloonConfig } from '../../src/balloon/config.js';

void t.test('rule 8: a write of the whole cached space changes only actual and poison_val', (t) => {
  const config = new BalloonConfig();
  config.numPages = 1000;
  const cached = new Uint8Array(16);
  const view = new DataView(cached.buffer);
  view.setUint32(0, 7, true);
  view.setUint32(4, 500, true);
  view.setUint32(8, 9, true);
  view.setUint32(12, 0xaaaaaaaa, true);
  config.write(0, cached);
  t.equal(config.numPages, 1000, 'num_pages stays ours');
  t.equal(config.actual, 500);
  t.equal(config.poisonVal, 0xaaaaaaaa);
  t.same([...config.read(8, 4)], [0, 0, 0, 0], 'free_page_hint_cmd_id stays ours');
  t.end();
});

void t.test('writes of parts take only fields that are complete', (t) => {
  const config = new BalloonConfig();
  config.write(4, new Uint8Array([1, 2, 0, 0]));
  t.equal(config.actual, 0x201);
  config.write(6, new Uint8Array([9, 9]));
  t.equal(config.actual, 0x201, 'half a field is left alone');
  config.write(4000, new Uint8Array([1, 2, 3, 4]));
  t.equal(config.actual, 0x201);
  t.end();
});

void t.test('reads at any offset and length are answered in full', (t) => {
  const config = new BalloonConfig();
  config.numPages = 0x04030201;
  t.same([...config.read(0, 4)], [1, 2, 3, 4]);
  t.same([...config.read(1, 3)], [2, 3, 4]);
  t.same([...config.read(14, 4)], [0, 0, 0, 0]);
  t.equal(config.read(0, 256).length, 256);
  t.equal(config.read(4096, 8).length, 8);
  t.equal(config.read(0, 0).length, 0);
  t.end();
});
