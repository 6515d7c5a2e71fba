// What the Node.js programs share. A check is an async function that throws when it fails. For each, two
// lines of JSON: {"begin"} before, so that the runner knows what hung, and {"check", "ok", "error"} after.
'use strict';
const assert = require('node:assert/strict');

const env = process.env;
const settings = {
  host: env.DRIVER_HOST,
  port: Number(env.DRIVER_PORT),
  user: env.DRIVER_USER,
  password: env.DRIVER_PASSWORD,
  database: env.DRIVER_DATABASE,
  ...(env.DRIVER_TLS ? { ssl: { rejectUnauthorized: false } } : {}),
};
const transactionMode = env.DRIVER_MODE === 'transaction';

// Settings that one client changes and no other may ever see.
const leaky = {
  application_name: "'leaky'", timezone: "'Asia/Tokyo'", search_path: "'pg_catalog'", statement_timeout: '12345',
  work_mem: "'7MB'", default_transaction_isolation: "'serializable'", default_transaction_read_only: 'on',
  'my.setting': "'secret'",
};
const showLeaky = 'select ' + Object.keys(leaky).map((n, i) => `coalesce(current_setting('${n}', true), '') as s${i}`).join(', ');

const list = [];
function check(name, action) {
  list.push([name, action]);
}

function names(variable) {
  return new Set((env[variable] || '').split(',').filter(Boolean));
}

async function fails(code, action) {
  let got;
  try {
    got = await action();
  } catch (error) {
    const found = error.code ?? error.original?.code ?? error.cause?.code;
    assert.equal(found, code, `SQLSTATE ${found} of ${error.message}`);
    return error;
  }
  throw new Error(`no error ${code} but ${JSON.stringify(got)}`);
}

const range = (n) => Array.from({ length: n }, (_, i) => i);
const sleep = (ms) => new Promise((done) => setTimeout(done, ms));

async function main() {
  const only = names('DRIVER_ONLY');
  const skip = names('DRIVER_SKIP');
  for (const [name, action] of list) {
    if (skip.has(name) || (only.size && !only.has(name))) continue;
    console.log(JSON.stringify({ begin: name }));
    let error = null;
    try {
      await action();
    } catch (caught) {
      error = `${caught.name}: ${caught.message}`.slice(0, 500);
    }
    console.log(JSON.stringify({ check: name, ok: error === null, error }));
  }
  process.exit(0);
}

module.exports = { assert, settings, transactionMode, leaky, showLeaky, check, fails, range, sleep, main };
