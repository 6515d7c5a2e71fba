// Sequelize, Knex and Drizzle: what an ORM sends of its own accord, and transactions with many clients.
'use strict';
const { Sequelize, DataTypes, QueryTypes } = require('sequelize');
const knexOf = require('knex');
const { drizzle } = require('drizzle-orm/node-postgres');
const { drizzle: drizzleJs } = require('drizzle-orm/postgres-js');
const core = require('drizzle-orm/pg-core');
const { eq, sql } = require('drizzle-orm');
const { Pool } = require('pg');
const postgres = require('postgres');
const { assert, settings, check, fails, range, main } = require('./checks');

async function withSequelize(action) {
  const db = new Sequelize(settings.database, settings.user, settings.password,
    { host: settings.host, port: settings.port, dialect: 'postgres', logging: false, pool: { max: 10 }, timezone: '+02:00',
      dialectOptions: { ssl: settings.ssl ?? false } });
  try {
    return await action(db);
  } finally {
    await db.close();
  }
}

async function withKnex(action) {
  const db = knexOf({ client: 'pg', connection: { ...settings, application_name: 'knex' }, pool: { min: 0, max: 10 } });
  try {
    return await action(db);
  } finally {
    await db.destroy();
  }
}

check('sequelize_models', () => withSequelize(async (db) => {
  const Person = db.define('orm_person', { name: { type: DataTypes.STRING, unique: true }, born: DataTypes.DATE, tags: DataTypes.JSONB });
  await Person.sync({ force: true });
  const born = new Date('2000-02-29T12:00:00Z');
  await Promise.all(range(40).map((i) => Person.create({ name: `p${i}`, born, tags: { i } })));
  assert.equal(await Person.count(), 40);
  const found = await Person.findOne({ where: { name: 'p7' } });
  assert.deepEqual([found.born.toISOString(), found.tags], [born.toISOString(), { i: 7 }]);
  await assert.rejects(() => Person.create({ name: 'p7' }), { name: 'SequelizeUniqueConstraintError' });
  await Person.bulkCreate(range(100).map((i) => ({ name: `b${i}` })));
  assert.equal(await Person.destroy({ where: { tags: null } }), 100);
  await Person.sync({ alter: true });
}));

check('sequelize_transactions', () => withSequelize(async (db) => {
  const Account = db.define('orm_account', { balance: DataTypes.INTEGER });
  await Account.sync({ force: true });
  const { id } = await Account.create({ balance: 0 });
  await Promise.all(range(25).map(() => db.transaction(async (transaction) => {
    const account = await Account.findByPk(id, { transaction, lock: transaction.LOCK.UPDATE });
    await account.update({ balance: account.balance + 1 }, { transaction });
  })));
  await assert.rejects(() => db.transaction(async (transaction) => {
    await Account.update({ balance: -1 }, { where: { id }, transaction });
    throw new Error('mine');
  }), /mine/);
  assert.equal((await Account.findByPk(id)).balance, 25);
  const rows = await db.query('select $1::int + 1 as x', { bind: [1], type: QueryTypes.SELECT });
  assert.equal(rows[0].x, 2);
}));

check('knex_queries', () => withKnex(async (db) => {
  await db.schema.dropTableIfExists('orm_knex');
  await db.schema.createTable('orm_knex', (t) => { t.increments(); t.string('name').unique(); t.jsonb('data'); t.timestamps(true, true); });
  await Promise.all(range(60).map((i) => db('orm_knex').insert({ name: `n${i}`, data: { i } })));
  assert.equal((await db('orm_knex').where('id', '>', 0).count('* as n'))[0].n, '60');
  await fails('23505', () => db('orm_knex').insert({ name: 'n1' }));
  await db('orm_knex').insert({ name: 'n1', data: { up: 1 } }).onConflict('name').merge();
  assert.deepEqual((await db('orm_knex').where({ name: 'n1' }).first()).data, { up: 1 });
}));

check('knex_transactions', () => withKnex(async (db) => {
  await db.schema.dropTableIfExists('orm_knextx');
  await db.schema.createTable('orm_knextx', (t) => { t.integer('a').primary(); });
  await Promise.all(range(30).map((i) => db.transaction(async (tx) => {
    await tx('orm_knextx').insert({ a: i });
    await fails('23505', () => tx.transaction((inner) => inner('orm_knextx').insert({ a: i }))); // a savepoint
    assert.equal((await tx('orm_knextx').where({ a: i })).length, 1);
    if (i % 3 === 0) await tx.rollback(new Error('mine'));
  }).catch((error) => assert.equal(error.message, 'mine'))));
  assert.equal((await db('orm_knextx')).length, 20);
}));

const people = core.pgTable('orm_drizzle', { id: core.serial('id').primaryKey(), name: core.text('name').notNull() });

async function drizzling(db) {
  await db.execute(sql`drop table if exists orm_drizzle`);
  await db.execute(sql`create table orm_drizzle (id serial primary key, name text not null)`);
  const byName = db.select().from(people).where(eq(people.name, sql.placeholder('name'))).prepare('by_name');
  await Promise.all(range(50).map(async (i) => {
    await db.insert(people).values({ name: `d${i}` });
    assert.equal((await byName.execute({ name: `d${i}` }))[0].name, `d${i}`);
  }));
  await assert.rejects(() => db.transaction(async (tx) => {
    await tx.delete(people);
    throw new Error('mine');
  }), /mine/);
  await db.transaction((tx) => tx.update(people).set({ name: 'x' }).where(eq(people.name, 'd1')));
  assert.equal((await db.select().from(people)).length, 50);
}

check('drizzle_pg', async () => {
  const pool = new Pool({ ...settings, max: 10 });
  try {
    await drizzling(drizzle(pool));
  } finally {
    await pool.end();
  }
});

check('drizzle_postgres_js', async () => {
  const client = postgres({ ...settings, username: settings.user, max: 10, onnotice: () => {} });
  try {
    await drizzling(drizzleJs(client));
  } finally {
    await client.end({ timeout: 1 });
  }
});

main();
