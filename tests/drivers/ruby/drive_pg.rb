# Ruby's pg: libpq's functions one by one, among them pipelines, single-row mode, cancel and COPY.
require 'pg'
require 'json'
require 'timeout'
$stdout.sync = true

def env(name) = ENV.fetch("DRIVER_#{name}", '')

LEAKY = { 'timezone' => "'Asia/Tokyo'", 'search_path' => "'pg_catalog'", 'statement_timeout' => '12345', 'work_mem' => "'7MB'",
          'default_transaction_read_only' => 'on', 'application_name' => "'leaky'", 'my.setting' => "'secret'" }.freeze
SHOW_LEAKY = 'select ' + LEAKY.keys.map { |n| "coalesce(current_setting('#{n}', true), '')" }.join(" || '|' || ")

def with(count, **more)
  clients = Array.new(count) do
    PG.connect(host: env('HOST'), port: env('PORT'), user: env('USER'), password: env('PASSWORD'), dbname: env('DATABASE'),
               connect_timeout: 15, **more)
  end
  yield(*clients)
ensure
  clients&.each { |c| c.close unless c.finished? }
end

def one(client, sql, values = []) = client.exec_params(sql, values).getvalue(0, 0)

def equal(got, want, what = 'value')
  raise "#{what}: got #{got.inspect[0, 200]}, want #{want.inspect[0, 200]}" unless got == want
end

def fails(kind)
  yield
rescue kind
  nil
else
  raise "no #{kind}"
end

CHECKS = {}
def check(name, &block) = CHECKS[name] = block

check('connect') { with(1) { |c| equal one(c, "select current_user || '/' || current_database()"), "#{env 'USER'}/#{env 'DATABASE'}" } }

check('types') do
  with(1) do |c|
    c.type_map_for_results = PG::BasicTypeMapForResults.new(c)
    bytes = (0..255).map(&:chr).join.b
    row = c.exec_params('select $1::int, $2::bigint, $3::float8, $4::text, $5::bool, $6::bytea, $7::text',
                        [7, 2**62, 1.5, 'Grüße, 世界 🐘', true, { value: bytes, format: 1 }, nil]).values[0]
    equal row, [7, 2**62, 1.5, 'Grüße, 世界 🐘', true, bytes, nil]
    equal c.exec_params('select $1::int8', [5], 1).ftype(0), 20
  end
end

check('transactions') do
  with(2) do |c, observer|
    c.exec('drop table if exists b_tx; create table b_tx (a int primary key)')
    c.transaction do
      c.exec_params('insert into b_tx values ($1)', [1])
      equal one(observer, 'select count(*) from b_tx'), '0'
    end
    fails(ArgumentError) do
      c.transaction do
        c.exec('insert into b_tx values (2)')
        raise ArgumentError
      end
    end
    equal one(observer, 'select count(*) from b_tx'), '1'
    equal c.transaction_status, PG::PQTRANS_IDLE
  end
end

check('savepoints') do
  with(1) do |c|
    c.exec('drop table if exists b_sp; create table b_sp (a int primary key)')
    c.transaction do
      4.times do |i|
        c.exec_params('insert into b_sp values ($1)', [i])
        c.exec('savepoint s')
        fails(PG::UniqueViolation) { c.exec_params('insert into b_sp values ($1)', [i]) }
        fails(PG::InFailedSqlTransaction) { c.exec('select 1') }
        c.exec('rollback to savepoint s')
      end
    end
    equal one(c, 'select count(*) from b_sp'), '4'
  end
end

check('errors_in_transaction') do
  with(1) do |c|
    3.times do
      fails(PG::DivisionByZero) { c.transaction { c.exec_params('select 1 / $1::int', [0]) } }
      fails(PG::UndefinedTable) { c.exec('select * from no_such_table') }
      equal one(c, 'select $1::int', [5]), '5'
    end
  end
end

check('prepared_interleaved') do
  with(12) do |*clients|
    clients.each_with_index do |c, i|
      c.prepare('mine', "select $1::int + #{i}")
      c.prepare("shared#{i}", 'select $1::int * 2')
    end
    10.times do |turn|
      clients.each_with_index do |c, i|
        equal c.exec_prepared('mine', [turn]).getvalue(0, 0), (turn + i).to_s
        equal c.exec_prepared("shared#{i}", [turn]).getvalue(0, 0), (turn * 2).to_s
      end
    end
    equal clients[3].describe_prepared('mine').nparams, 1
    fails(PG::InvalidSqlStatementName) { clients[0].exec_prepared('shared1', [1]) }
    fails(PG::DuplicatePstatement) { clients[0].prepare('mine', 'select 1') }
    clients.each { |c| c.exec('deallocate mine') } # as ActiveRecord does
    clients.each do |c|
      fails(PG::InvalidSqlStatementName) { c.exec_prepared('mine', [1]) }
      c.prepare('mine', 'select 7')
      equal c.exec_prepared('mine').getvalue(0, 0), '7'
    end
  end
end

check('replan') do
  with(5) do |owner, *clients|
    owner.exec('drop table if exists b_replan; create table b_replan (a int); insert into b_replan values (1)')
    clients.each do |c|
      c.prepare('r', 'select * from b_replan')
      equal c.exec_prepared('r').fields, ['a']
    end
    owner.exec('alter table b_replan add b int default 2')
    clients.each do |c|
      begin
        r = c.exec_prepared('r')
        equal r.values[0].size, r.fields.size
      rescue PG::FeatureNotSupported
        nil # as PostgreSQL
      end
    end
    6.times do
      with(1) do |newcomer|
        newcomer.prepare('r', 'select * from b_replan')
        equal newcomer.describe_prepared('r').nfields, 2, 'described to a newcomer'
        equal newcomer.exec_prepared('r').values, [%w[1 2]]
      end
    end
  end
end

check('cursor') do
  with(3) do |*clients|
    clients.each_with_index { |c, i| c.exec("begin; declare c cursor for select #{i * 1000} + generate_series(1, 50)") }
    5.times do |part|
      clients.each_with_index do |c, i|
        equal c.exec('fetch 10 from c').column_values(0).map(&:to_i), (1..10).map { |n| i * 1000 + part * 10 + n }
      end
    end
    clients.each { |c| c.exec('close c; commit') }
  end
end

check('single_row_mode') do
  with(1) do |c|
    c.send_query('select generate_series(1, 20000)')
    c.set_single_row_mode
    sum = 0
    c.get_result.stream_each_row { |row| sum += row[0].to_i }
    equal sum, 20_000 * 20_001 / 2
    equal one(c, 'select 1'), '1'
  end
end

check('copy') do
  with(1) do |c|
    c.exec('drop table if exists b_copy; create table b_copy (a int, b text)')
    rows = (0...20_000).map { |i| "#{i}\tzeile #{i} ä\n" }
    c.copy_data('copy b_copy from stdin') { rows.each { |r| c.put_copy_data(r) } }
    out = []
    c.copy_data('copy (select * from b_copy order by a) to stdout') do
      while (row = c.get_copy_data)
        out << row.force_encoding('UTF-8')
      end
    end
    equal out == rows, true
    fails(PG::InvalidTextRepresentation) { c.copy_data('copy b_copy from stdin') { c.put_copy_data("x\ty\n") } }
    fails(IOError) { c.copy_data('copy b_copy from stdin') { raise IOError } }
    equal one(c, 'select count(*) from b_copy'), '20000'
  end
end

check('cancel') do
  with(3) do |victim, neighbour, third|
    neighbour.send_query('select 5 from pg_sleep(1.2)')
    3.times do
      victim.send_query('select pg_sleep(20)')
      sleep 0.15
      equal victim.cancel, nil
      fails(PG::QueryCanceled) { victim.get_last_result }
      equal one(victim, 'select 6'), '6'
      equal one(third, 'select 7 from pg_sleep(0.02)'), '7'
    end
    equal neighbour.get_last_result.getvalue(0, 0), '5'
  end
end

check('big_row') do
  with(1) do |c|
    value = 'y' * (20 << 20)
    equal one(c, 'select $1::text', [value]) == value, true
  end
end

check('pipeline') do
  with(5) do |*clients|
    clients.each do |c|
      c.enter_pipeline_mode
      100.times do |n|
        c.send_query_params(n == 50 ? 'select 1 / ($1::int - $1::int)' : 'select $1::int', [n])
        c.pipeline_sync if n % 10 == 9
      end
    end
    clients.each do |c|
      good = bad = aborted = 0
      10.times do
        loop do
          result = c.get_result or next
          case result.result_status
          when PG::PGRES_TUPLES_OK then good += 1
          when PG::PGRES_PIPELINE_ABORTED then aborted += 1
          when PG::PGRES_PIPELINE_SYNC then break
          else bad += 1
          end
        end
      end
      equal [good, bad, aborted], [90, 1, 9]
      c.exit_pipeline_mode
      equal one(c, 'select 1'), '1'
    end
  end
end

check('rapid_connects') do
  10.times do |round|
    Array.new(10) { |i| Thread.new { with(1) { |c| equal one(c, 'select $1::int', [i]), i.to_s } } }.each(&:join)
    with(1) { |c| c.reset and equal(one(c, 'select $1::int', [round]), round.to_s) }
  end
end

check('listen_notify') do
  with(2) do |listener, sender|
    listener.exec('listen b_channel')
    sender.exec_params("select pg_notify('b_channel', $1)", ['one'])
    sender.exec("notify b_channel, 'two'")
    got = []
    2.times { listener.wait_for_notify(5) { |_, _, payload| got << payload } }
    equal got, %w[one two]
  end
end

check('set_isolation') do
  baseline = with(1) { |c| one(c, SHOW_LEAKY) }
  with(4) do |*setters|
    setters.each { |c| LEAKY.each { |name, value| c.exec("set #{name} = #{value}") } }
    with(6) { |*others| others.each { |c| equal one(c, SHOW_LEAKY), baseline } }
    setters.each { |c| equal one(c, 'show timezone'), 'Asia/Tokyo' }
  end
  with(4) do |*others|
    others.each { |c| c.exec('begin') and equal(one(c, SHOW_LEAKY), baseline, "after the setters' end") }
  end
end

check('set_like_rails') do
  # What ActiveRecord's adapter sends after each log-in.
  with(8) do |*clients|
    clients.each_with_index do |c, i|
      c.set_client_encoding('unicode')
      c.exec('SET client_min_messages TO warning')
      c.exec('SET standard_conforming_strings = on')
      c.exec("SET SESSION timezone TO 'UTC'")
      c.exec("SET intervalstyle = iso_8601; SET search_path TO rails#{i}, public")
    end
    3.times { clients.each_with_index { |c, i| equal one(c, 'show search_path'), "rails#{i}, public" } }
  end
end

check('startup_parameters') do
  clients = Array.new(6) do |i|
    PG.connect(host: env('HOST'), port: env('PORT'), user: env('USER'), password: env('PASSWORD'), dbname: env('DATABASE'),
               application_name: "app#{i}", options: "-c search_path=path#{i} -c statement_timeout=#{i + 1}s")
  end
  3.times do
    clients.each_with_index do |c, i|
      equal one(c, "select current_setting('application_name') || ' ' || current_setting('search_path') || ' ' || " \
                   "current_setting('statement_timeout')"), "app#{i} path#{i} #{i + 1}s"
    end
  end
  clients.each(&:close)
end

check('temp_tables') do
  with(2) do |c, other|
    c.transaction do
      c.exec('create temp table b_temp (a int) on commit drop')
      c.exec('insert into b_temp values (1)')
      equal one(c, 'select count(*) from b_temp'), '1'
      fails(PG::UndefinedTable) { other.exec('select * from b_temp') }
    end
  end
end

only = env('ONLY').split(',')
skip = env('SKIP').split(',')
CHECKS.each do |name, block|
  next if skip.include?(name) || (only.any? && !only.include?(name))

  puts JSON.generate(begin: name)
  error = nil
  begin
    Timeout.timeout(50) { block.call }
  rescue StandardError, Timeout::Error => e
    error = "#{e.class}: #{e.message}".strip.scrub
  end
  puts JSON.generate(check: name, ok: error.nil?, error: error)
end
exit!(0)
