// postgres (postgres.js): pipelined by itself, every query prepared, a pool of its own.
'use strict';
const postgres = require('postgres');
const { pipeline } = require('node:stream/promises');
const { Readable } = require('node:stream');
const { assert, settings, leaky, showLeaky, check, fails, range, sleep, main } = require('./checks');

async function using(action, more = {}) {
  const sql = postgres({ ...settings, username: settings.user, max: 10, onnotice: () => {}, ...more });
  try {
    return await action(sql);
  } finally {
    await sql.end({ timeout: 1 });
  }
}

check('connect', () => using(async (sql) => {
  const [{ who }] = await sql`select current_user || '/' || current_database() as who`;
  assert.equal(who, `${settings.user}/${settings.database}`);
}));

check('types', () => using(async (sql) => {
  const moment = new Date('2024-02-29T23:59:59.123Z');
  const bytes = Buffer.from(range(256));
  const [row] = await sql`select ${7}::int as a, ${'4611686018427387904'}::bigint as b, ${'Grüße, 世界 🐘'}::text as c,
    ${true}::bool as d, ${moment}::timestamptz as e, ${[1, 2, 3]}::int[] as f, ${null}::text as g,
    ${sql.json({ a: [1, null] })} as h, ${bytes}::bytea as i`;
  assert.deepEqual({ ...row }, { a: 7, b: '4611686018427387904', c: 'Grüße, 世界 🐘', d: true, e: moment, f: [1, 2, 3],
    g: null, h: { a: [1, null] }, i: bytes });
}));

check('transactions', () => using(async (sql) => {
  await sql.unsafe('drop table if exists q_tx; create table q_tx (a int primary key)');
  await sql.begin(async (tx) => {
    await tx`insert into q_tx values (${1})`;
    assert.equal((await sql`select * from q_tx`).length, 0);
  });
  await assert.rejects(() => sql.begin(async (tx) => {
    await tx`insert into q_tx values (${2})`;
    throw new Error('mine');
  }), /mine/);
  assert.equal((await sql`select * from q_tx`).length, 1);
}));

check('savepoints', () => using(async (sql) => {
  await sql.unsafe('drop table if exists q_sp; create table q_sp (a int primary key)');
  await sql.begin(async (tx) => {
    for (const i of range(4)) {
      await tx`insert into q_sp values (${i})`;
      await fails('23505', () => tx.savepoint((sp) => sp`insert into q_sp values (${i})`));
    }
  });
  assert.equal((await sql`select * from q_sp`).length, 4);
}));

check('errors_in_transaction', () => using(async (sql) => {
  for (const _ of range(3)) {
    await fails('22012', () => sql.begin((tx) => tx`select 1 / ${0}::int`));
    await fails('42P01', () => sql`select * from no_such_table`);
    assert.equal((await sql`select ${2}::int as x`)[0].x, 2);
  }
}));

check('prepared_interleaved', () => using(async (sql) => {
  await Promise.all(range(400).map(async (i) => {
    const [{ x }] = await sql`select ${i}::int + 1 as x, pg_sleep(0.002)`;
    assert.equal(x, i + 1);
    const [{ y }] = await sql.unsafe(`select $1::int * ${i % 7} as y`, [i], { prepare: true });
    assert.equal(y, i * (i % 7));
  }));
}, { max: 16 }));

check('unprepared', () => using(async (sql) => {
  await Promise.all(range(200).map(async (i) => assert.equal((await sql`select ${i}::int + 1 as x`)[0].x, i + 1)));
}, { max: 16, prepare: false }));

check('replan', () => using(async (sql) => {
  await sql.unsafe('drop table if exists q_replan; create table q_replan (a int); insert into q_replan values (1)');
  const read = () => sql`select * from q_replan where a = ${1}`;
  await Promise.all(range(20).map(read));
  await sql.unsafe('alter table q_replan add b int default 2');
  for (const _ of range(20)) {
    try {
      assert.equal((await read()).length, 1);
    } catch (error) {
      assert.equal(error.code, '0A000');
    }
  }
  await using(async (newcomer) => assert.deepEqual({ ...(await newcomer`select * from q_replan where a = ${1}`)[0] }, { a: 1, b: 2 }));
}));

check('cursor', () => using(async (sql) => {
  await Promise.all(range(4).map(async (i) => {
    const got = [];
    await sql.begin((tx) => tx`select ${i * 1000}::int + generate_series(1, 95) as n`.cursor(10, (rows) => {
      got.push(...rows.map((r) => r.n));
    }));
    assert.deepEqual(got, range(95).map((n) => i * 1000 + n + 1));
  }));
  let some = 0;
  for await (const rows of sql`select generate_series(1, 1000) as n`.cursor(7)) {
    some += rows.length;
    if (some >= 21) break;
  }
  assert.equal((await sql`select 1 as x`)[0].x, 1);
}));

check('copy', () => using(async (sql) => {
  await sql.unsafe('drop table if exists q_copy; create table q_copy (a int, b text)');
  const lines = range(20000).map((i) => `${i}\tzeile ${i}\n`);
  await pipeline(Readable.from(lines), await sql`copy q_copy from stdin`.writable());
  let out = '';
  for await (const chunk of await sql`copy (select * from q_copy order by a) to stdout`.readable()) out += chunk;
  assert.ok(out === lines.join(''));
}));

check('cancel', () => using(async (sql) => {
  const beside = sql`select 5 as x from pg_sleep(1.2)`.execute();
  const victim = sql`select pg_sleep(20)`.execute();
  await sleep(300);
  victim.cancel();
  await fails('57014', () => victim);
  assert.equal((await beside)[0].x, 5);
  assert.deepEqual(await Promise.all(range(20).map(async (i) => (await sql`select ${i}::int as x`)[0].x)), range(20));
}));

check('big_row', () => using(async (sql) => {
  const value = 'y'.repeat(20 << 20);
  assert.ok((await sql`select ${value}::text as v`)[0].v === value);
}));

check('pipeline', () => using(async (sql) => {
  await sql.unsafe('drop table if exists q_pipe; create table q_pipe (a int primary key)');
  await sql.begin((tx) => range(200).map((i) => tx`insert into q_pipe values (${i})`));
  assert.equal((await sql`select * from q_pipe`).length, 200);
  const results = await Promise.allSettled(range(100).map((i) => sql`select 1 / ${i % 10}::int as x`));
  assert.equal(results.filter((r) => r.status === 'rejected' && r.reason.code === '22012').length, 10);
  assert.equal(results.filter((r) => r.status === 'fulfilled').length, 90);
}, { max: 2 }));

check('rapid_connects', async () => {
  for (const _ of range(3)) {
    await Promise.all(range(20).map((i) => using(async (sql) => assert.equal((await sql`select ${i}::int as x`)[0].x, i), { max: 1 })));
  }
});

check('listen_notify', () => using(async (sql) => {
  const got = [];
  await sql.listen('q_channel', (payload) => got.push(payload));
  await sql.notify('q_channel', 'one');
  await sql`notify q_channel, 'two'`;
  for (let i = 0; i < 100 && got.length < 2; i++) await sleep(30);
  assert.deepEqual(got, ['one', 'two']);
}));

check('set_isolation', async () => {
  const baseline = await using((sql) => sql.unsafe(showLeaky), { max: 1 });
  await using(async (setter) => {
    for (const [name, value] of Object.entries(leaky)) await setter.unsafe(`set ${name} = ${value}`);
    await using(async (other) => {
      for (const _ of range(10)) assert.deepEqual({ ...(await other.unsafe(showLeaky))[0] }, { ...baseline[0] });
    }, { max: 1 });
  }, { max: 1 });
  await using((sql) => Promise.all(range(12).map(async () => {
    assert.deepEqual({ ...(await sql.unsafe(showLeaky))[0] }, { ...baseline[0] }, "after the setter's end");
  })), { max: 4 });
});

check('startup_parameters', () => Promise.all(range(6).map((i) => using(async (sql) => {
  for (const _ of range(3)) {
    const [row] = await sql`select current_setting('application_name') as a, current_setting('search_path') as p,
      current_setting('statement_timeout') as t`;
    assert.deepEqual({ ...row }, { a: `app${i}`, p: `path${i}`, t: `${i + 1}s` });
  }
}, { max: 1, connection: { application_name: `app${i}`, search_path: `path${i}`, statement_timeout: (i + 1) * 1000 } }))));

main();
