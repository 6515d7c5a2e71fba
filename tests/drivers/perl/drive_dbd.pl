# DBD::Pg. Variant "client": pg_server_prepare => 0; otherwise its default (server-side from the second use on).
use strict;
use warnings;
use utf8;
use DBI qw(:sql_types);
use DBD::Pg qw(:pg_types :async);
use JSON::PP;
use Time::HiRes qw(sleep time);

$| = 1;
my $json = JSON::PP->new->canonical->utf8;
my $variant = $ENV{DRIVER_VARIANT} // '';
my %leaky = (timezone => "'Asia/Tokyo'", search_path => "'pg_catalog'", statement_timeout => '12345', work_mem => "'7MB'",
    default_transaction_read_only => 'on', 'my.setting' => "'secret'");
my $show_leaky = 'select ' . join(" || '|' || ", map { "coalesce(current_setting('$_', true), '')" } sort keys %leaky);

sub connected {
    my ($more, %options) = @_;
    my $dsn = "dbi:Pg:host=$ENV{DRIVER_HOST};port=$ENV{DRIVER_PORT};dbname=$ENV{DRIVER_DATABASE};connect_timeout=15" . ($more // '');
    my $c = DBI->connect($dsn, $ENV{DRIVER_USER}, $ENV{DRIVER_PASSWORD},
        { RaiseError => 1, PrintError => 0, PrintWarn => 0, AutoCommit => 1, pg_enable_utf8 => 1, %options });
    $c->{pg_server_prepare} = 0 if $variant eq 'client';
    return $c;
}
sub clients { my ($count) = @_; return map { connected() } 1 .. $count }
sub one { my ($c, $sql, @values) = @_; return ($c->selectrow_array($sql, undef, @values))[0] }
sub equal {
    my ($got, $want, $what) = @_;
    my ($g, $w) = map { defined $_ ? (ref $_ ? $json->encode($_) : $_) : 'undef' } $got, $want;
    die(($what // 'value') . ': got ' . substr($g, 0, 200) . ', want ' . substr($w, 0, 200) . "\n") unless $g eq $w;
}
sub fails {
    my ($c, $state, $action) = @_;
    eval { $action->(); 1 } and die "no error $state\n";
    my $found = $c->state;
    die "SQLSTATE $found ($@), want $state\n" unless $found eq $state;
}

my @checks = (
    connect => sub {
        my $c = connected();
        equal(one($c, "select current_user || '/' || current_database()"), "$ENV{DRIVER_USER}/$ENV{DRIVER_DATABASE}");
        equal($c->ping > 0, 1);
    },
    types => sub {
        my $c = connected();
        my $bytes = join '', map { chr } 0 .. 255;
        for (1 .. 3) {
            my $s = $c->prepare('select ?::int, ?::bigint, ?::numeric, ?::text, ?::bool, ?::date, ?::int[], ?::text, ?::bytea');
            $s->bind_param(9, $bytes, { pg_type => PG_BYTEA });
            my @values = (7, '4611686018427387904', '12345678901234567890.123456789', 'Grüße, 世界 🐘', 1, '2024-02-29', [1, 2, 3], undef);
            $s->bind_param($_ + 1, $values[$_]) for 0 .. $#values;
            $s->execute;
            my @row = $s->fetchrow_array;
            equal([map { defined && !ref ? "$_" : $_ } @row[0 .. 7]], [map { defined && !ref ? "$_" : $_ } @values]);
            equal($row[8] eq $bytes, 1, 'bytes');
        }
    },
    transactions => sub {
        my ($c, $observer) = clients(2);
        $c->do('drop table if exists l_tx; create table l_tx (a int primary key)');
        $c->begin_work;
        $c->do('insert into l_tx values (?)', undef, 1);
        equal(one($observer, 'select count(*) from l_tx'), 0);
        $c->commit;
        $c->begin_work;
        $c->do('insert into l_tx values (?)', undef, 2);
        $c->rollback;
        equal(one($observer, 'select count(*) from l_tx'), 1);
    },
    savepoints => sub {
        my ($c) = clients(1);
        $c->do('drop table if exists l_sp; create table l_sp (a int primary key)');
        $c->begin_work;
        for my $i (1 .. 4) {
            $c->do('insert into l_sp values (?)', undef, $i);
            $c->pg_savepoint('s');
            fails($c, '23505', sub { $c->do('insert into l_sp values (?)', undef, $i) });
            $c->pg_rollback_to('s');
            $c->pg_release('s');
        }
        $c->commit;
        equal(one($c, 'select count(*) from l_sp'), 4);
    },
    errors_in_transaction => sub {
        my ($c) = clients(1);
        for my $i (1 .. 4) {
            $c->begin_work;
            fails($c, '22012', sub { one($c, 'select 1 / ?::int', 0) });
            fails($c, '25P02', sub { one($c, 'select 1') });
            $c->rollback;
            fails($c, '42P01', sub { one($c, 'select * from no_such_table where a = ?', 1) });
            equal(one($c, 'select ?::int', $i), $i);
        }
    },
    prepared_interleaved => sub {
        my @clients = clients(12);
        my @own = map { $clients[$_]->prepare("select ?::int + $_", { pg_prepare_now => $variant eq 'client' ? 0 : 1 }) } 0 .. 11;
        my @shared = map { $_->prepare('select ?::int * 2') } @clients;
        for my $turn (1 .. 10) {
            for my $i (0 .. 11) {
                equal(($clients[$i]->selectrow_array($own[$i], undef, $turn))[0], $turn + $i);
                equal(($clients[$i]->selectrow_array($shared[$i], undef, $turn))[0], $turn * 2);
            }
        }
        @own = ();    # DBD::Pg deallocates them by SQL: DEALLOCATE dbdpg_p...
        for my $turn (1 .. 3) {
            for my $i (0 .. 11) {
                equal(($clients[$i]->selectrow_array($shared[$i], undef, $turn))[0], $turn * 2);
                equal(one($clients[$i], 'select ?::int + 1', $turn), $turn + 1);
            }
        }
    },
    replan => sub {
        my @clients = clients(5);
        $clients[0]->do('drop table if exists l_replan; create table l_replan (a int); insert into l_replan values (1)');
        my @statements = map { $_->prepare('select * from l_replan where a = ?', { pg_prepare_now => 1 }) } @clients;
        for my $n (1 .. 3) { for (@statements) { $_->execute(1); equal($_->fetchrow_arrayref->[0], 1); $_->finish } }
        $clients[0]->do('alter table l_replan add b int default 2');
        for my $i (0 .. 4) {
            eval { $statements[$i]->execute(1); $statements[$i]->finish; 1 } or equal($clients[$i]->state, '0A000');
        }
        for (1 .. 6) {
            my $c = connected();
            my $s = $c->prepare('select * from l_replan where a = ?', { pg_prepare_now => 1 });
            for (1 .. 2) { $s->execute(1); equal($s->fetchrow_hashref->{b}, 2, 'a newcomer'); $s->finish }
        }
    },
    cursor => sub {
        my ($c) = clients(1);
        $c->begin_work;
        $c->do('declare l_cursor cursor for select generate_series(1, 1000)');
        my $sum = 0;
        while (1) {
            my $rows = $c->selectcol_arrayref('fetch 77 from l_cursor');
            last unless @$rows;
            $sum += $_ for @$rows;
        }
        $c->commit;
        equal($sum, 500500);
    },
    copy => sub {
        my ($c) = clients(1);
        $c->do('drop table if exists l_copy; create table l_copy (a int, b text)');
        $c->do('copy l_copy from stdin');
        $c->pg_putcopydata("$_\tzeile $_ ä\n") for 1 .. 10000;
        $c->pg_putcopyend;
        $c->do('copy (select * from l_copy order by a) to stdout');
        my ($count, $line) = (0, '');
        $count++ while $c->pg_getcopydata($line) >= 0;
        equal($count, 10000);
        $c->do('copy l_copy from stdin');
        $c->pg_putcopydata("x\ty\n");
        fails($c, '22P02', sub { $c->pg_putcopyend });
        equal(one($c, 'select count(*) from l_copy'), 10000);
    },
    cancel => sub {
        my ($victim, $other) = clients(2);
        for (1 .. 3) {
            $victim->do('select pg_sleep(20)', { pg_async => PG_ASYNC });
            sleep 0.15;
            $victim->pg_cancel;
            equal(one($victim, 'select 6'), 6);
            equal(one($other, 'select 7 from pg_sleep(0.02)'), 7);
        }
    },
    big_row => sub {
        my ($c) = clients(1);
        my $value = 'y' x (20 << 20);
        equal(one($c, 'select ?::text', $value) eq $value, 1);
    },
    pipeline => sub {
        my ($c) = clients(1);
        $c->do('drop table if exists l_many; create table l_many (a int, b text)');
        my $s = $c->prepare('insert into l_many values (?, ?)');
        $s->execute_array({}, [1 .. 300], [map { "t$_" } 1 .. 300]);
        equal(one($c, 'select count(*) from l_many'), 300);
    },
    catalog => sub {
        my ($c) = clients(1);
        $c->do('drop table if exists l_catalog; create table l_catalog (id serial primary key, t text)');
        equal([$c->primary_key(undef, undef, 'l_catalog')], ['id']);
        $c->do('insert into l_catalog (t) values (?)', undef, 'x');
        equal($c->last_insert_id(undef, undef, 'l_catalog', undef), 1) if $ENV{DRIVER_MODE} ne 'transaction';
    },
    rapid_connects => sub {
        for my $i (1 .. 60) { my $c = connected(); equal(one($c, 'select ?::int', $i), $i); $c->disconnect }
    },
    listen_notify => sub {
        my ($listener, $sender) = clients(2);
        $listener->do('listen l_channel');
        $sender->do(q{select pg_notify('l_channel', ?)}, undef, 'one');
        my ($found, $until) = (undef, time + 5);
        until ($found || time > $until) { $found = $listener->pg_notifies or sleep 0.02 }
        equal($found && $found->[2], 'one');
    },
    set_isolation => sub {
        my $baseline = one(connected(), $show_leaky);
        my @setters = clients(4);
        for my $c (@setters) { $c->do("set $_ = $leaky{$_}") for sort keys %leaky }
        equal(one($_, $show_leaky), $baseline) for clients(6);
        equal(one($_, 'show timezone'), 'Asia/Tokyo') for @setters;
        $_->disconnect for @setters;
        my @others = clients(4);
        for (@others) { $_->begin_work; equal(one($_, $show_leaky), $baseline, "after the setters' end") }
        $_->rollback for @others;
    },
    startup_parameters => sub {
        my @clients = map { connected(";application_name=app$_;options='-c search_path=path$_ -c statement_timeout=${_}s'") } 1 .. 6;
        for my $turn (1 .. 3) {
            for my $i (1 .. 6) {
                equal(one($clients[$i - 1], "select current_setting('application_name') || ' ' || current_setting('search_path') || ' ' || "
                        . "current_setting('statement_timeout')"), "app$i path$i ${i}s");
            }
        }
    },
    temp_tables => sub {
        my ($c, $other) = clients(2);
        $c->begin_work;
        $c->do('create temp table l_temp (a int) on commit drop');
        $c->do('insert into l_temp values (?)', undef, 1);
        equal(one($c, 'select count(*) from l_temp'), 1);
        fails($other, '42P01', sub { one($other, 'select * from l_temp') });
        $c->commit;
    },
);

my %only = map { $_ => 1 } split /,/, $ENV{DRIVER_ONLY} // '';
my %skip = map { $_ => 1 } split /,/, $ENV{DRIVER_SKIP} // '';
while (my ($name, $run) = splice @checks, 0, 2) {
    next if $skip{$name} || (%only && !$only{$name});
    print $json->encode({ begin => $name }), "\n";
    my $error = eval { local $SIG{ALRM} = sub { die "time-out\n" }; alarm 50; $run->(); alarm 0; 1 } ? undef : "$@";
    alarm 0;
    print $json->encode({ check => $name, ok => defined $error ? JSON::PP::false : JSON::PP::true, error => $error }), "\n";
}
