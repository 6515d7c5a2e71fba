<?php
// PDO_PGSQL. Variants (DRIVER_VARIANT): "" (native prepares), "emulate" (PDO::ATTR_EMULATE_PREPARES),
// "noprepare" (PDO::PGSQL_ATTR_DISABLE_PREPARES: parameters without a named statement).
declare(strict_types=1);
set_error_handler(function ($level, $message) { throw new ErrorException($message); });

const LEAKY = ['timezone' => "'Asia/Tokyo'", 'search_path' => "'pg_catalog'", 'statement_timeout' => '12345', 'work_mem' => "'7MB'",
    'default_transaction_read_only' => 'on', 'application_name' => "'leaky'", 'my.setting' => "'secret'"];

function env(string $name): string { return getenv("DRIVER_$name") ?: ''; }

function connect(string $more = '', array $options = []): PDO
{
    $dsn = sprintf('pgsql:host=%s;port=%s;dbname=%s;connect_timeout=15%s', env('HOST'), env('PORT'), env('DATABASE'), $more);
    return new PDO($dsn, env('USER'), env('PASSWORD'), $options + [
        PDO::ATTR_ERRMODE => PDO::ERRMODE_EXCEPTION,
        PDO::ATTR_EMULATE_PREPARES => env('VARIANT') === 'emulate',
        PDO::PGSQL_ATTR_DISABLE_PREPARES => env('VARIANT') === 'noprepare',
    ]);
}

function connections(int $count): array { return array_map(fn() => connect(), range(1, $count)); }

function one(PDO $c, string $sql, array $values = []): mixed
{
    $s = $c->prepare($sql);
    $s->execute($values);
    return $s->fetchColumn();
}

function equal(mixed $got, mixed $want, string $what = 'value'): void
{
    if ($got !== $want) {
        throw new Exception("$what: got " . substr(json_encode($got) ?: '?', 0, 200) . ', want ' . substr(json_encode($want) ?: '?', 0, 200));
    }
}

function fails(string $state, callable $action): void
{
    try {
        $action();
    } catch (PDOException $e) {
        equal((string) $e->getCode(), $state, $e->getMessage());
        return;
    }
    throw new Exception("no error $state");
}

function show_leaky(): string
{
    return 'select ' . implode(" || '|' || ", array_map(fn($n) => "coalesce(current_setting('$n', true), '')", array_keys(LEAKY)));
}

$checks = [];

$checks['connect'] = function () {
    $c = connect();
    equal(one($c, "select current_user || '/' || current_database()"), env('USER') . '/' . env('DATABASE'));
    equal((bool) $c->getAttribute(PDO::ATTR_SERVER_VERSION), true);
};
$checks['types'] = function () {
    $c = connect();
    for ($round = 0; $round < 2; $round++) {
        $s = $c->prepare('select ?::int, ?::bigint, ?::numeric, ?::float8, ?::text, ?::bool, ?::date, ?::text, ?::bytea');
        $values = [7, 4611686018427387904, '12345678901234567890.123456789', 1.5, "Grüße, 世界 🐘 '\\", true, '2024-02-29', null];
        foreach ($values as $i => $v) {
            $s->bindValue($i + 1, $v, is_bool($v) ? PDO::PARAM_BOOL : (is_int($v) ? PDO::PARAM_INT : (is_null($v) ? PDO::PARAM_NULL : PDO::PARAM_STR)));
        }
        $bytes = implode('', array_map('chr', range(0, 255)));
        $s->bindValue(9, $bytes, PDO::PARAM_LOB);
        $s->execute();
        $row = $s->fetch(PDO::FETCH_NUM);
        equal([$row[0], $row[1], $row[2], (float) $row[3], $row[4], $row[5], $row[6], $row[7]], $values);
        equal(stream_get_contents($row[8]), $bytes);
    }
};
$checks['transactions'] = function () {
    [$c, $observer] = connections(2);
    $c->exec('drop table if exists h_tx; create table h_tx (a int primary key)');
    $c->beginTransaction();
    one($c, 'insert into h_tx values (?) returning a', [1]);
    equal(one($observer, 'select count(*) from h_tx'), 0);
    $c->commit();
    $c->beginTransaction();
    one($c, 'insert into h_tx values (?) returning a', [2]);
    equal($c->inTransaction(), true);
    $c->rollBack();
    equal(one($observer, 'select count(*) from h_tx'), 1);
};
$checks['savepoints'] = function () {
    $c = connect();
    $c->exec('drop table if exists h_sp; create table h_sp (a int primary key)');
    $c->beginTransaction();
    for ($i = 0; $i < 4; $i++) {
        one($c, 'insert into h_sp values (?) returning a', [$i]);
        $c->exec('savepoint s');
        fails('23505', fn() => one($c, 'insert into h_sp values (?) returning a', [$i]));
        $c->exec('rollback to savepoint s');
    }
    $c->commit();
    equal(one($c, 'select count(*) from h_sp'), 4);
};
$checks['errors_in_transaction'] = function () {
    $c = connect();
    for ($i = 0; $i < 4; $i++) {
        $c->beginTransaction();
        fails('22012', fn() => one($c, 'select 1 / ?::int', [0]));
        fails('25P02', fn() => one($c, 'select 1'));
        $c->rollBack();
        fails('42P01', fn() => one($c, 'select * from no_such_table where a = ?', [1]));
        equal(one($c, 'select ?::int', [$i]), $i);
    }
};
$checks['prepared_interleaved'] = function () {
    $clients = connections(12);
    $own = $shared = [];
    foreach ($clients as $i => $c) {
        $own[] = $c->prepare("select ?::int + $i");
        $shared[] = $c->prepare('select ?::int * 2');
    }
    for ($turn = 0; $turn < 10; $turn++) {
        foreach ($clients as $i => $c) {
            $own[$i]->execute([$turn]);
            equal($own[$i]->fetchColumn(), $turn + $i);
            $shared[$i]->execute([$turn]);
            equal($shared[$i]->fetchColumn(), $turn * 2);
        }
    }
    $own = []; // PDO deallocates them by SQL: DEALLOCATE pdo_stmt_...
    for ($turn = 0; $turn < 3; $turn++) {
        foreach ($clients as $i => $c) {
            equal(one($c, "select ?::int + 100 + $i", [1]), 101 + $i);
            $shared[$i]->execute([$turn]);
            equal($shared[$i]->fetchColumn(), $turn * 2);
        }
    }
};
$checks['replan'] = function () {
    $clients = connections(5);
    $clients[0]->exec('drop table if exists h_replan; create table h_replan (a int); insert into h_replan values (1)');
    $statements = array_map(fn($c) => $c->prepare('select * from h_replan where a = ?'), $clients);
    foreach ($statements as $s) {
        $s->execute([1]);
        equal($s->fetch(PDO::FETCH_ASSOC), ['a' => 1]);
    }
    $clients[0]->exec('alter table h_replan add b int default 2');
    foreach ($statements as $s) {
        try {
            $s->execute([1]);
            equal($s->fetch(PDO::FETCH_ASSOC)['a'], 1);
        } catch (PDOException $e) {
            equal($e->getCode(), '0A000');
        }
    }
    for ($i = 0; $i < 6; $i++) {
        $s = connect()->prepare('select * from h_replan where a = ?');
        $s->execute([1]);
        equal($s->fetch(PDO::FETCH_ASSOC), ['a' => 1, 'b' => 2], 'a newcomer');
    }
};
$checks['cursor'] = function () {
    $c = connect();
    $c->beginTransaction();
    $s = $c->prepare('select generate_series(1, 100)', [PDO::ATTR_CURSOR => PDO::CURSOR_SCROLL]);
    $s->execute();
    equal($s->fetch(PDO::FETCH_NUM, PDO::FETCH_ORI_NEXT)[0], 1);
    equal($s->fetch(PDO::FETCH_NUM, PDO::FETCH_ORI_ABS, 50)[0], 50);
    equal($s->fetch(PDO::FETCH_NUM, PDO::FETCH_ORI_PRIOR)[0], 49);
    $s->closeCursor();
    $c->commit();
};
$checks['copy'] = function () {
    $c = connect();
    $c->exec('drop table if exists h_copy; create table h_copy (a int, b text)');
    $rows = array_map(fn($i) => "$i\tzeile $i ä", range(1, 10000));
    equal($c->pgsqlCopyFromArray('h_copy', $rows), true);
    equal(array_map('rtrim', $c->pgsqlCopyToArray('h_copy')), $rows);
    try {
        $c->pgsqlCopyFromArray('h_copy', ["x\ty"]);
        throw new LogicException('nonsense was accepted');
    } catch (PDOException $e) {
        equal($e->getCode(), '22P02');
    }
    equal(one($c, 'select count(*) from h_copy'), 10000);
};
$checks['large_objects'] = function () {
    $c = connect();
    $c->beginTransaction();
    $oid = $c->pgsqlLOBCreate();
    $stream = $c->pgsqlLOBOpen($oid, 'w');
    fwrite($stream, str_repeat('large', 100000));
    $stream = null;
    $c->commit();
    $c->beginTransaction();
    equal(strlen(stream_get_contents($c->pgsqlLOBOpen($oid, 'r'))), 500000);
    $c->pgsqlLOBUnlink($oid);
    $c->commit();
};
$checks['big_row'] = function () {
    $c = connect();
    $value = str_repeat('y', 20 << 20);
    equal(one($c, 'select length(?::text)', [$value]), 20 << 20);
    equal(one($c, 'select ?::text', [$value]) === $value, true);
};
$checks['rapid_connects'] = function () {
    for ($i = 0; $i < 60; $i++) {
        equal(one(connect(), 'select ?::int', [$i]), $i);
    }
};
$checks['persistent'] = function () {
    for ($i = 0; $i < 10; $i++) {
        $c = connect('', [PDO::ATTR_PERSISTENT => true]);
        equal(one($c, 'select ?::int', [$i]), $i);
        $c = null;
    }
};
$checks['listen_notify'] = function () {
    [$listener, $sender] = connections(2);
    $listener->exec('listen h_channel');
    one($sender, "select pg_notify('h_channel', ?)", ['one']);
    $got = $listener->pgsqlGetNotify(PDO::FETCH_ASSOC, 5000);
    equal($got ? $got['payload'] : null, 'one');
};
$checks['set_isolation'] = function () {
    $baseline = one(connect(), show_leaky());
    $setters = connections(4);
    foreach ($setters as $c) foreach (LEAKY as $name => $value) $c->exec("set $name = $value");
    foreach (connections(6) as $c) equal(one($c, show_leaky()), $baseline);
    foreach ($setters as $c) equal(one($c, 'show timezone'), 'Asia/Tokyo');
    unset($c);
    $setters = [];
    foreach ($others = connections(4) as $c) {
        $c->beginTransaction();
        equal(one($c, show_leaky()), $baseline, "after the setters' end");
    }
};
$checks['startup_parameters'] = function () {
    $clients = array_map(fn($i) => connect(";application_name=app$i;options='-c search_path=path$i -c statement_timeout={$i}s'"), range(1, 6));
    for ($turn = 0; $turn < 3; $turn++) {
        foreach ($clients as $n => $c) {
            $i = $n + 1;
            equal(one($c, "select current_setting('application_name') || ' ' || current_setting('search_path') || ' ' || "
                . "current_setting('statement_timeout')"), "app$i path$i {$i}s");
        }
    }
};
$checks['temp_tables'] = function () {
    [$c, $other] = connections(2);
    $c->beginTransaction();
    $c->exec('create temp table h_temp (a int) on commit drop');
    one($c, 'insert into h_temp values (?) returning a', [1]);
    equal(one($c, 'select count(*) from h_temp'), 1);
    fails('42P01', fn() => one($other, 'select * from h_temp'));
    $c->commit();
};

ini_set('memory_limit', '1G');
$only = array_filter(explode(',', env('ONLY')));
$skip = array_filter(explode(',', env('SKIP')));
foreach ($checks as $name => $run) {
    if (in_array($name, $skip) || ($only && !in_array($name, $only))) continue;
    echo json_encode(['begin' => $name]), "\n";
    $error = null;
    try {
        $run();
    } catch (Throwable $e) {
        $error = get_class($e) . ': ' . $e->getMessage();
    }
    echo json_encode(['check' => $name, 'ok' => $error === null, 'error' => $error], JSON_INVALID_UTF8_SUBSTITUTE), "\n";
}
