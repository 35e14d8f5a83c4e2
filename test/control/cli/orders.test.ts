import { execFile } from 'node:child_process';
import { join } from 'node:path';
import t from 'tap';
import { Check } from 'typebox/schema';
import { SCHEMAS, type VmOrder } from '../../../protocol/control/schema.js';
import { BIN } from '../../support/daemon.js';
import { serveFleet, vmView } from '../../support/fleet.js';

const TARGET: VmOrder = {
  order: 'target',
  says: 'the guest keeps 1 GiB',
  by: 'operator',
  since: '2026-11-23T12:04:00.123Z',
  undo: 'balloonctl policy resume web-1',
};
const AWAY: VmOrder = { ...TARGET, undo: 'balloonctl orders off-1 --take-back' };

void t.test('orders are listed and taken back, also of a VM that is not connected', async (t) => {
  const { socketPath, fleet } = await serveFleet(t);
  fleet.put(vmView('web-1', { orders: [TARGET] }));
  fleet.put(vmView('web-2'));
  fleet.waiting.set('off-1', [AWAY]);
  const ctl = (...args: string[]): Promise<{ code: number; stdout: string; stderr: string }> =>
    new Promise((resolve) => {
      const command = [join(BIN, 'balloonctl.js'), '--control', socketPath, ...args];
      const child = execFile(process.execPath, command, (_, stdout, stderr) => {
        resolve({ code: child.exitCode ?? -1, stdout, stderr });
      });
    });
  const since = 'the guest keeps 1 GiB, by the operator since 2026-11-23T12:04:00Z';
  t.same(await ctl('orders'), {
    code: 0,
    stderr: '',
    stdout: `web-1\n  ${since}\n    to take it back: ${TARGET.undo}\noff-1, not connected\n  ${since}\n    to take it back: ${AWAY.undo}\n`,
  });
  const listed = JSON.parse((await ctl('orders', '--json')).stdout) as unknown;
  t.ok(Check(SCHEMAS.VmOrdersList, listed));
  t.match((await ctl('orders', 'web-2')).stdout, 'no order holds for web-2');
  t.match((await ctl('show', 'off-1')).stderr, /VM "off-1" is not connected: see balloonctl orders/);
  t.equal((await ctl('orders', 'off-1', '--take-back')).stdout, 'off-1: taken back: the guest keeps 1 GiB\n');
  t.same(
    fleet.orders().map(({ vm }) => vm),
    ['web-1'],
  );
  const none = await ctl('orders', 'off-1', '--take-back');
  t.match([none.code, none.stderr], [1, /no order holds for a VM "off-1": see balloonctl orders/]);
  t.match((await ctl('orders', '--take-back')).stderr, /needs VM/);
});
