// libpqxx 6: transactions, prepared statements, stream_to / stream_from, pipeline, cursors,
// notifications.
#include <cstdlib>
#include <functional>
#include <iostream>
#include <memory>
#include <pqxx/pqxx>
#include <sstream>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

namespace {

std::string env(const std::string& name) {
  const char* value = std::getenv(("DRIVER_" + name).c_str());
  return value != nullptr ? value : "";
}

std::string dsn(const std::string& more = "") {
  return "host=" + env("HOST") + " port=" + env("PORT") + " user=" + env("USER") +
         " password=" + env("PASSWORD") + " dbname=" + env("DATABASE") + " connect_timeout=15 " +
         more;
}

using Connections = std::vector<std::unique_ptr<pqxx::connection>>;

Connections connections(int count) {
  Connections all;
  for (int i = 0; i < count; ++i) all.push_back(std::make_unique<pqxx::connection>(dsn()));
  return all;
}

template <class Got, class Want>
void equal(const Got& got, const Want& want) {
  if (got == want) return;
  std::ostringstream text;
  text << "got " << got << ", want " << want;
  throw std::runtime_error(text.str().substr(0, 400));
}

template <class Error>
void fails(const std::function<void()>& action) {
  try {
    action();
  } catch (const Error&) {
    return;
  }
  throw std::runtime_error("no error");
}

std::string one(pqxx::connection& c, const std::string& sql) {
  pqxx::nontransaction work(c);
  return work.exec1(sql)[0].c_str();
}

void run(pqxx::connection& c, const std::string& sql) {
  pqxx::nontransaction work(c);
  work.exec(sql);
}

// ---- checks -------------------------------------------------------------------------------------

void connect() {
  pqxx::connection c(dsn());
  equal(one(c, "select current_user || '/' || current_database()"),
        env("USER") + "/" + env("DATABASE"));
  equal(c.get_variable("server_encoding"), "UTF8");
}

void transactions() {
  auto c = connections(2);
  run(*c[0], "drop table if exists c_tx; create table c_tx (a int primary key)");
  {
    pqxx::work work(*c[0]);
    work.exec_params0("insert into c_tx values ($1)", 1);
    equal(one(*c[1], "select count(*) from c_tx"), "0");
    work.commit();
  }
  {
    pqxx::work work(*c[0]);
    work.exec_params0("insert into c_tx values ($1)", 2);
  }
  pqxx::robusttransaction<> robust(*c[0]);
  robust.exec0("insert into c_tx values (3)");
  robust.commit();
  equal(one(*c[1], "select count(*) from c_tx"), "2");
}

void savepoints() {
  pqxx::connection c(dsn());
  run(c, "drop table if exists c_sp; create table c_sp (a int primary key)");
  pqxx::work work(c);
  for (int i = 0; i < 4; ++i) {
    work.exec_params0("insert into c_sp values ($1)", i);
    work.exec0("savepoint s");
    fails<pqxx::unique_violation>([&] { work.exec_params0("insert into c_sp values ($1)", i); });
    work.exec0("rollback to savepoint s");
    pqxx::subtransaction inner(work, "inner");
    inner.exec0("delete from c_sp");
    inner.abort();
  }
  work.commit();
  equal(one(c, "select count(*) from c_sp"), "4");
}

void errors_in_transaction() {
  pqxx::connection c(dsn());
  for (int i = 0; i < 4; ++i) {
    {
      pqxx::work work(c);
      fails<pqxx::data_exception>([&] { work.exec_params("select 1 / $1::int", 0); });
    }
    fails<pqxx::undefined_table>([&] { run(c, "select * from no_such_table"); });
    equal(one(c, "select 5"), "5");
  }
}

void prepared_interleaved() {
  auto all = connections(12);
  for (size_t i = 0; i < all.size(); ++i) {
    all[i]->prepare("mine", "select $1::int + " + std::to_string(i));
    all[i]->prepare("shared" + std::to_string(i), "select $1::int * 2");
  }
  for (int turn = 0; turn < 10; ++turn) {
    for (size_t i = 0; i < all.size(); ++i) {
      pqxx::work work(*all[i]);
      equal(work.exec_prepared1("mine", turn)[0].as<int>(), turn + static_cast<int>(i));
      equal(work.exec_prepared1("shared" + std::to_string(i), turn)[0].as<int>(), turn * 2);
      work.commit();
    }
  }
  for (auto& c : all) {
    c->unprepare("mine");  // DEALLOCATE by SQL
    c->prepare("mine", "select 7");
    pqxx::nontransaction work(*c);
    equal(work.exec_prepared1("mine")[0].as<int>(), 7);
  }
}

void cursor() {
  pqxx::connection c(dsn());
  pqxx::work work(c);
  pqxx::icursorstream stream(work, "select generate_series(1, 1000)", "c_cursor", 77);
  int sum = 0;
  for (pqxx::result rows; stream >> rows;) {
    for (const auto& row : rows) sum += row[0].as<int>();
  }
  equal(sum, 500500);
}

void copy() {
  pqxx::connection c(dsn());
  run(c, "drop table if exists c_copy; create table c_copy (a int, b text)");
  {
    pqxx::work work(c);
    pqxx::stream_to out(work, "c_copy");
    for (int i = 0; i < 20000; ++i) out << std::make_tuple(i, "zeile ä\t\\" + std::to_string(i));
    out.complete();
    work.commit();
  }
  pqxx::work work(c);
  pqxx::stream_from in(work, "c_copy");
  std::tuple<int, std::string> row;
  int count = 0;
  while (in >> row) {
    equal(std::get<1>(row), "zeile ä\t\\" + std::to_string(std::get<0>(row)));
    ++count;
  }
  in.complete();
  equal(count, 20000);
}

void pipelines() {
  pqxx::connection c(dsn());
  pqxx::work work(c);
  pqxx::pipeline pipe(work);
  pipe.retain(20);
  std::vector<pqxx::pipeline::query_id> ids;
  for (int i = 0; i < 100; ++i) ids.push_back(pipe.insert("select " + std::to_string(i)));
  for (int i = 0; i < 100; ++i)
    equal(pipe.retrieve(ids[static_cast<size_t>(i)])[0][0].as<int>(), i);
}

void cancel() {
  auto c = connections(2);
  for (int i = 0; i < 3; ++i) {
    std::thread canceller([&] {
      std::this_thread::sleep_for(std::chrono::milliseconds(200));
      c[0]->cancel_query();
    });
    std::string error;
    try {
      run(*c[0], "select pg_sleep(20)");
    } catch (const pqxx::sql_error& e) {
      error = e.sqlstate();
    }
    canceller.join();
    equal(error, "57014");
    equal(one(*c[0], "select 6"), "6");
    equal(one(*c[1], "select 7 from pg_sleep(0.02)"), "7");
  }
}

void big_row() {
  pqxx::connection c(dsn());
  const std::string value(20 << 20, 'y');
  pqxx::nontransaction work(c);
  equal(work.exec_params1("select $1::text", value)[0].as<std::string>() == value, true);
}

void rapid_connects() {
  std::vector<std::thread> threads;
  std::vector<std::string> errors(15);
  for (size_t i = 0; i < errors.size(); ++i) {
    threads.emplace_back([i, &errors] {
      try {
        for (int n = 0; n < 4; ++n) {
          pqxx::connection c(dsn());
          equal(one(c, "select " + std::to_string(i)), std::to_string(i));
        }
      } catch (const std::exception& e) {
        errors[i] = e.what();
      }
    });
  }
  for (auto& t : threads) t.join();
  for (const auto& e : errors) equal(e, "");
}

class Receiver : public pqxx::notification_receiver {
 public:
  using notification_receiver::notification_receiver;
  void operator()(const std::string& payload, int) override { got += payload + ";"; }
  std::string got;
};

void listen_notify() {
  auto c = connections(2);
  Receiver receiver(*c[0], "c_channel");
  run(*c[1], "notify c_channel, 'one'");
  run(*c[1], "select pg_notify('c_channel', 'two')");
  for (int i = 0; i < 10 && receiver.got != "one;two;"; ++i) c[0]->await_notification(0, 500'000);
  equal(receiver.got, "one;two;");
}

void set_isolation() {
  const std::string show =
      "select current_setting('timezone') || current_setting('search_path') || "
      "current_setting('statement_timeout')";
  auto c = connections(10);
  const std::string baseline = one(*c[9], show);
  for (size_t i = 0; i < 4; ++i) {
    c[i]->set_variable("timezone", "'Asia/Tokyo'");
    c[i]->set_variable("search_path", "s" + std::to_string(i));
    run(*c[i], "set statement_timeout = 12345");
  }
  for (size_t i = 4; i < 10; ++i) equal(one(*c[i], show), baseline);
  for (size_t i = 0; i < 4; ++i)
    equal(one(*c[i], show), "Asia/Tokyos" + std::to_string(i) + "12345ms");
}

void startup_parameters() {
  Connections all;
  for (int i = 0; i < 6; ++i) {
    const std::string n = std::to_string(i);
    all.push_back(std::make_unique<pqxx::connection>(dsn("application_name=app" + n +
                                                         " options='-c search_path=path" + n +
                                                         " -c statement_timeout=9" + n + "s'")));
  }
  for (int turn = 0; turn < 3; ++turn) {
    for (size_t i = 0; i < 6; ++i) {
      const std::string n = std::to_string(i);
      equal(one(*all[i],
                "select current_setting('application_name') || current_setting('search_path') || "
                "extract(epoch from "
                "current_setting('statement_timeout')::interval)::int"),
            "app" + n + "path" + n + "9" + n);
    }
  }
}

void temp_tables() {
  auto c = connections(2);
  pqxx::work work(*c[0]);
  work.exec0("create temp table c_temp (a int) on commit drop");
  work.exec_params0("insert into c_temp values ($1)", 1);
  equal(work.exec1("select count(*) from c_temp")[0].as<int>(), 1);
  fails<pqxx::undefined_table>([&] { one(*c[1], "select * from c_temp"); });
  work.commit();
}

// ---- the lines for the runner
// ----------------------------------------------------------------------

std::string json(const std::string& text) {
  std::string out = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\') out += '\\';
    out += static_cast<unsigned char>(c) < 32 ? ' ' : c;
  }
  return out + '"';
}

bool listed(const std::string& variable, const std::string& name) {
  return ("," + env(variable) + ",").find("," + name + ",") != std::string::npos;
}

}  // namespace

int main() {
  const std::vector<std::pair<std::string, void (*)()>> checks = {
      {"connect", connect},
      {"transactions", transactions},
      {"savepoints", savepoints},
      {"errors_in_transaction", errors_in_transaction},
      {"prepared_interleaved", prepared_interleaved},
      {"cursor", cursor},
      {"copy", copy},
      {"pipeline", pipelines},
      {"cancel", cancel},
      {"big_row", big_row},
      {"rapid_connects", rapid_connects},
      {"listen_notify", listen_notify},
      {"set_isolation", set_isolation},
      {"startup_parameters", startup_parameters},
      {"temp_tables", temp_tables},
  };
  for (const auto& [name, check] : checks) {
    if (listed("SKIP", name) || (!env("ONLY").empty() && !listed("ONLY", name))) continue;
    std::cout << "{\"begin\": " << json(name) << "}" << std::endl;
    std::string error;
    try {
      check();
    } catch (const std::exception& e) {
      error = std::string("failed: ") + e.what();
    }
    std::cout << "{\"check\": " << json(name) << ", \"ok\": " << (error.empty() ? "true" : "false")
              << ", \"error\": " << (error.empty() ? "null" : json(error)) << "}" << std::endl;
  }
}
