// pg (node-postgres): Client and Pool, named statements, pg-cursor, pg-copy-streams.
'use strict';
const { Client, Pool } = require('pg');
const Cursor = require('pg-cursor');
const copy = require('pg-copy-streams');
const { pipeline } = require('node:stream/promises');
const { Readable, Writable } = require('node:stream');
const { assert, settings, transactionMode, leaky, showLeaky, check, fails, range, sleep, main } = require('./checks');

async function using(count, action, more = {}) {
  const clients = range(count).map((i) => new Client({ ...settings, ...(typeof more === 'function' ? more(i) : more) }));
  for (const c of clients) c.on('error', () => {});
  try {
    for (const c of clients) await c.connect();
    return await action(...clients);
  } finally {
    await Promise.all(clients.map((c) => c.end().catch(() => {})));
  }
}

const one = async (c, sql, values) => Object.values((await c.query(sql, values)).rows[0])[0];

check('connect', () => using(1, async (c) => {
  assert.equal(await one(c, "select current_user || '/' || current_database()"), `${settings.user}/${settings.database}`);
}));

check('types', () => using(1, async (c) => {
  const values = [7, '4611686018427387904', '12345678901234567890.123456789', 1.5, 'Grüße, 世界 🐘', true,
    new Date('2024-02-29T23:59:59.123Z'), [1, 2, 3], ['a', null, 'ä'], null, { a: [1, null] }];
  const types = ['int', 'bigint', 'numeric', 'float8', 'text', 'bool', 'timestamptz', 'int[]', 'text[]', 'text', 'jsonb'];
  for (const [i, type] of types.entries()) assert.deepEqual(await one(c, `select $1::${type}`, [values[i]]), values[i], type);
  const bytes = Buffer.from(range(256));
  assert.deepEqual(await one(c, 'select $1::bytea', [bytes]), bytes);
}));

check('transactions', () => using(2, async (c, observer) => {
  await c.query('drop table if exists n_tx; create table n_tx (a int primary key)');
  await c.query('begin');
  await c.query('insert into n_tx values ($1)', [1]);
  assert.equal(await one(observer, 'select count(*)::int from n_tx'), 0);
  await c.query('commit');
  await c.query('begin');
  await c.query('insert into n_tx values ($1)', [2]);
  await c.query('rollback');
  assert.equal(await one(observer, 'select count(*)::int from n_tx'), 1);
}));

check('savepoints', () => using(1, async (c) => {
  await c.query('drop table if exists n_sp; create table n_sp (a int primary key)');
  await c.query('begin');
  for (const i of range(4)) {
    await c.query('insert into n_sp values ($1)', [i]);
    await c.query('savepoint s');
    await fails('23505', () => c.query('insert into n_sp values ($1)', [i]));
    await fails('25P02', () => c.query('select 1'));
    await c.query('rollback to savepoint s');
  }
  await c.query('commit');
  assert.equal(await one(c, 'select count(*)::int from n_sp'), 4);
}));

check('errors_in_transaction', () => using(1, async (c) => {
  for (const _ of range(3)) {
    await c.query('begin');
    await fails('22012', () => c.query('select 1 / $1::int', [0]));
    await fails('25P02', () => c.query({ name: 'x', text: 'select 1' }));
    await c.query('rollback');
    assert.equal(await one(c, 'select $1::int', [2]), 2);
    await fails('42P01', () => c.query('select * from no_such_table'));
  }
  assert.equal(await one(c, { name: 'x', text: 'select 1' }), 1);
}));

check('prepared_interleaved', () => using(12, async (...clients) => {
  for (const turn of range(10)) {
    await Promise.all(clients.map(async (c, i) => {
      assert.equal(await one(c, { name: 'mine', text: `select $1::int + ${i} as x`, values: [turn] }), turn + i);
      assert.equal(await one(c, { name: `shared${i}`, text: 'select $1::int * 2 as x', values: [turn] }), turn * 2);
    }));
  }
}));

check('prepared_error', () => using(4, async (...clients) => {
  for (const c of clients) {
    await fails('42P01', () => c.query({ name: 'bad', text: 'select * from no_such_table' }));
    await fails('22012', () => c.query({ name: 'div', text: 'select 1 / $1::int as x', values: [0] }));
  }
  for (const c of clients) assert.equal(await one(c, { name: 'div', text: 'select 1 / $1::int as x', values: [1] }), 1);
}));

check('replan', () => using(6, async (owner, ...clients) => {
  await owner.query('drop table if exists n_replan; create table n_replan (a int); insert into n_replan values (1)');
  const statement = { name: 'r', text: 'select * from n_replan' };
  for (const c of clients) assert.deepEqual((await c.query(statement)).rows, [{ a: 1 }]);
  await owner.query('alter table n_replan add b int default 2');
  for (const c of clients) {
    try {
      assert.equal((await c.query(statement)).rows.length, 1);
    } catch (error) {
      assert.equal(error.code, '0A000');
    }
  }
  for (const _ of range(6)) {
    await using(1, async (newcomer) => assert.deepEqual((await newcomer.query(statement)).rows, [{ a: 1, b: 2 }]));
  }
}));

check('cursor', () => using(3, async (...clients) => {
  await Promise.all(clients.map(async (c, i) => {
    await c.query('begin');
    const cursor = c.query(new Cursor('select $1::int + generate_series(1, 95) as n', [i * 1000]));
    const got = [];
    for (let rows; (rows = await cursor.read(10)).length; ) got.push(...rows.map((r) => r.n));
    assert.deepEqual(got, range(95).map((n) => i * 1000 + n + 1));
    const early = c.query(new Cursor('select generate_series(1, 1000) as n'));
    await early.read(5);
    await early.close();
    await c.query('commit');
  }));
}));

check('copy', () => using(1, async (c) => {
  await c.query('drop table if exists n_copy; create table n_copy (a int, b text)');
  const lines = range(20000).map((i) => `${i}\tzeile ${i} ä\n`);
  await pipeline(Readable.from(lines), c.query(copy.from('copy n_copy from stdin')));
  let out = '';
  const sink = new Writable({ write(chunk, _, done) { out += chunk.toString('latin1'); done(); } });
  await pipeline(c.query(copy.to('copy (select * from n_copy order by a) to stdout')), sink);
  assert.ok(Buffer.from(out, 'latin1').toString() === lines.join(''));
  await fails('22P02', () => pipeline(Readable.from(['x\ty\n']), c.query(copy.from('copy n_copy from stdin'))));
  assert.equal(await one(c, 'select count(*)::int from n_copy'), 20000);
}));

check('cancel', () => using(3, async (victim, neighbour, canceller) => {
  const beside = one(neighbour, 'select 5 from pg_sleep(1.2)');
  const sleeping = fails('57014', () => victim.query('select pg_sleep(20)'));
  await sleep(300);
  const other = new Client(settings); // pg's own way: an unconnected client carries the request
  other.cancel(victim, victim.activeQuery ?? victim._getActiveQuery?.());
  await Promise.race([sleeping, sleep(5000).then(() => { throw new Error('not cancelled in 5 s'); })]);
  assert.equal(await one(victim, 'select 6'), 6);
  assert.equal(await beside, 5);
  assert.equal(await one(canceller, 'select 7'), 7);
}));

check('query_timeout', () => using(2, async (c, other) => {
  await assert.rejects(() => c.query({ text: 'select pg_sleep(10)', query_timeout: 200 }), /timeout/);
  assert.equal(await one(other, 'select 1'), 1);
}));

check('big_row', () => using(1, async (c) => {
  const value = 'y'.repeat(20 << 20);
  assert.ok((await one(c, 'select $1::text', [value])) === value);
  assert.equal((await one(c, "select repeat('x', 20971520)")).length, 20 << 20);
}));

check('pipeline', () => using(6, async (...clients) => {
  await Promise.all(clients.map(async (c, i) => {
    const answers = await Promise.all(range(100).map((n) => (n % 10 === 7
      ? fails('22012', () => c.query('select 1 / ($1::int - $1::int)', [n]))
      : one(c, 'select $1::int', [i * 1000 + n]))));
    for (const n of range(100)) if (n % 10 !== 7) assert.equal(answers[n], i * 1000 + n);
  }));
}));

check('rapid_connects', async () => {
  for (const _ of range(4)) {
    await Promise.all(range(25).map((i) => using(1, async (c) => assert.equal(await one(c, 'select $1::int', [i]), i))));
  }
});

check('pool', async () => {
  const pool = new Pool({ ...settings, max: 10 });
  await Promise.all(range(200).map(async (i) => assert.equal(Number(await one(pool, 'select $1::int', [i])), i)));
  await Promise.all(range(30).map(async (i) => {
    const c = await pool.connect();
    try {
      await c.query('begin');
      await c.query("select set_config('my.local', $1, true)", [String(i)]);
      assert.equal(await one(c, "select current_setting('my.local')"), String(i));
      await c.query('commit');
    } finally {
      c.release();
    }
  }));
  await pool.end();
});

check('listen_notify', () => using(2, async (listener, sender) => {
  const got = [];
  listener.on('notification', (m) => got.push(m.payload));
  await listener.query('listen n_channel');
  await sender.query("select pg_notify('n_channel', $1)", ['one']);
  await sender.query("notify n_channel, 'two'");
  for (let i = 0; i < 100 && got.length < 2; i++) await sleep(30);
  assert.deepEqual(got, ['one', 'two']);
}));

check('temp_tables', () => using(2, async (c, other) => {
  await c.query('begin');
  await c.query('create temp table n_temp (a int) on commit drop');
  await c.query('insert into n_temp values (1)');
  assert.equal(await one(c, 'select count(*)::int from n_temp'), 1);
  await fails('42P01', () => other.query('select * from n_temp'));
  await c.query('commit');
}));

check('set_isolation', async () => {
  const baseline = await using(1, async (c) => (await c.query(showLeaky)).rows);
  await using(4, async (...setters) => {
    for (const c of setters) for (const [name, value] of Object.entries(leaky)) await c.query(`set ${name} = ${value}`);
    await using(6, async (...others) => {
      for (const c of others) assert.deepEqual((await c.query(showLeaky)).rows, baseline);
    });
  });
  await using(4, async (...others) => {
    for (const c of others) {
      await c.query('begin');
      assert.deepEqual((await c.query(showLeaky)).rows, baseline, "after the setters' end");
    }
  });
});

check('startup_parameters', () => using(6, async (...clients) => {
  for (const _ of range(3)) {
    for (const [i, c] of clients.entries()) {
      assert.deepEqual((await c.query("select current_setting('application_name') as a, current_setting('search_path') as p, "
        + "current_setting('statement_timeout') as t, current_setting('idle_in_transaction_session_timeout') as i")).rows,
      [{ a: `app${i}`, p: `path${i}`, t: `${i + 1}s`, i: '33s' }]);
    }
  }
}, (i) => ({
  application_name: `app${i}`, options: `-c search_path=path${i}`, statement_timeout: (i + 1) * 1000,
  idle_in_transaction_session_timeout: 33000,
})));

check('deallocate', () => using(4, async (...clients) => {
  for (const c of clients) await c.query({ name: 'd', text: 'select 1 as x' });
  await clients[0].query('deallocate d');
  await fails('26000', () => clients[0].query({ name: 'd', text: 'select 1 as x' }));
  for (const c of clients.slice(1)) assert.equal(await one(c, { name: 'd', text: 'select 1 as x' }), 1);
}));

check('vanishing_client', () => using(1, async (c) => {
  await c.query('drop table if exists n_gone; create table n_gone (a int primary key)');
  const vanishing = new Client(settings);
  vanishing.on('error', () => {});
  await vanishing.connect();
  await vanishing.query('begin');
  await vanishing.query('insert into n_gone values (1)');
  vanishing.connection.stream.destroy();
  await c.query("set lock_timeout = '5s'");
  await c.query('insert into n_gone values (1)');
  assert.equal(transactionMode || (await one(c, 'show lock_timeout')) === '5s', true);
}));

main();
