// pgJDBC. Variants (DRIVER_VARIANT): "" (prepareThreshold 5), "threshold1" (server-side at once), "simple", "extendedForPrepared",
// "extendedCacheEverything" (preferQueryMode).
import java.io.StringReader;
import java.io.StringWriter;
import java.math.BigDecimal;
import java.sql.BatchUpdateException;
import java.sql.Connection;
import java.sql.DriverManager;
import java.sql.PreparedStatement;
import java.sql.ResultSet;
import java.sql.SQLException;
import java.sql.Savepoint;
import java.sql.Statement;
import java.time.LocalDate;
import java.time.OffsetDateTime;
import java.time.ZoneOffset;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.HashSet;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Objects;
import java.util.Properties;
import java.util.Set;
import java.util.UUID;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import org.postgresql.PGConnection;
import org.postgresql.PGNotification;

public class DriveJdbc {
  interface Check {
    void run() throws Exception;
  }

  interface Use {
    void with(Connection[] c) throws Exception;
  }

  static final Map<String, Check> CHECKS = new LinkedHashMap<>();
  static final String VARIANT = env("DRIVER_VARIANT");
  static final boolean TRANSACTION_MODE = env("DRIVER_MODE").equals("transaction");
  static final String[][] LEAKY = {{"application_name", "'leaky'"}, {"timezone", "'Asia/Tokyo'"}, {"search_path", "'pg_catalog'"},
      {"statement_timeout", "12345"}, {"work_mem", "'7MB'"}, {"default_transaction_isolation", "'serializable'"},
      {"default_transaction_read_only", "on"}, {"my.setting", "'secret'"}};

  static String env(String name) {
    return System.getenv().getOrDefault(name, "");
  }

  static Connection connect(String... more) throws SQLException {
    Properties p = new Properties();
    p.setProperty("user", env("DRIVER_USER"));
    p.setProperty("password", env("DRIVER_PASSWORD"));
    if (!env("DRIVER_TLS").isEmpty()) p.setProperty("sslmode", "require");
    p.setProperty("connectTimeout", "15");
    p.setProperty("socketTimeout", "40");
    if (VARIANT.equals("threshold1")) p.setProperty("prepareThreshold", "1");
    else if (!VARIANT.isEmpty()) p.setProperty("preferQueryMode", VARIANT);
    for (int i = 0; i < more.length; i += 2) p.setProperty(more[i], more[i + 1]);
    return DriverManager.getConnection(
        "jdbc:postgresql://" + env("DRIVER_HOST") + ":" + env("DRIVER_PORT") + "/" + env("DRIVER_DATABASE"), p);
  }

  static void using(int count, Use use, String... more) throws Exception {
    Connection[] c = new Connection[count];
    try {
      for (int i = 0; i < count; i++) c[i] = connect(more);
      use.with(c);
    } finally {
      for (Connection one : c) if (one != null) one.close();
    }
  }

  static void run(Connection c, String sql) throws SQLException {
    try (Statement s = c.createStatement()) {
      s.execute(sql);
    }
  }

  static String one(Connection c, String sql, Object... values) throws SQLException {
    try (PreparedStatement s = c.prepareStatement(sql)) {
      for (int i = 0; i < values.length; i++) s.setObject(i + 1, values[i]);
      try (ResultSet r = s.executeQuery()) {
        r.next();
        return r.getString(1);
      }
    }
  }

  static void equal(Object got, Object want) {
    if (!Objects.equals(got, want)) throw new AssertionError("got " + got + ", want " + want);
  }

  static void fails(String state, Check action) throws Exception {
    try {
      action.run();
    } catch (SQLException e) {
      if (!state.equals(e.getSQLState())) throw new AssertionError("SQLSTATE " + e.getSQLState() + " (" + e.getMessage() + "), want " + state);
      return;
    }
    throw new AssertionError("no error " + state);
  }

  static void inThreads(int count, java.util.function.IntFunction<Check> work) throws Exception {
    ExecutorService pool = Executors.newFixedThreadPool(count);
    try {
      List<Future<?>> all = new ArrayList<>();
      for (int i = 0; i < count; i++) {
        Check mine = work.apply(i);
        all.add(pool.submit(() -> {
          mine.run();
          return null;
        }));
      }
      for (Future<?> f : all) f.get();
    } finally {
      pool.shutdownNow();
    }
  }

  static String showLeaky() {
    StringBuilder sql = new StringBuilder("select ''");
    for (String[] s : LEAKY) sql.append(" || '|' || coalesce(current_setting('" + s[0] + "', true), '')");
    return sql.toString();
  }

  static void define() {
    CHECKS.put("connect", () -> using(1, c -> {
      equal(one(c[0], "select current_user || '/' || current_database()"), env("DRIVER_USER") + "/" + env("DRIVER_DATABASE"));
      equal(c[0].isValid(5), true);
      equal(c[0].getMetaData().getDatabaseProductName(), "PostgreSQL");
    }));
    CHECKS.put("types", () -> using(1, c -> {
      OffsetDateTime moment = OffsetDateTime.of(2024, 2, 29, 23, 59, 59, 123456000, ZoneOffset.UTC);
      byte[] bytes = new byte[256];
      for (int i = 0; i < 256; i++) bytes[i] = (byte) i;
      try (PreparedStatement s = c[0].prepareStatement(
               "select ?::int, ?::bigint, ?::numeric, ?::float8, ?::text, ?::bool, ?::date, ?::timestamptz, ?::uuid, ?::bytea, ?::int[], ?::text")) {
        for (int round = 0; round < 8; round++) {  // text at first, binary once it is prepared
          Object[] v = {7, 1L << 62, new BigDecimal("12345678901234567890.123456789"), 1.5e300, "Grüße, 世界 🐘 '\\", true,
              LocalDate.of(2024, 2, 29), moment, new UUID(0, 7), bytes};
          for (int i = 0; i < v.length; i++) s.setObject(i + 1, v[i]);
          s.setArray(11, c[0].createArrayOf("int4", new Integer[] {1, null, 3}));
          s.setString(12, null);
          try (ResultSet r = s.executeQuery()) {
            r.next();
            equal(r.getInt(1), v[0]);
            equal(r.getLong(2), v[1]);
            equal(r.getBigDecimal(3), v[2]);
            equal(r.getDouble(4), v[3]);
            equal(r.getString(5), v[4]);
            equal(r.getBoolean(6), v[5]);
            equal(r.getObject(7, LocalDate.class), v[6]);
            equal(r.getObject(8, OffsetDateTime.class).toInstant(), moment.toInstant());
            equal(r.getObject(9), v[8]);
            equal(Arrays.equals(r.getBytes(10), bytes), true);
            equal(Arrays.asList((Object[]) r.getArray(11).getArray()), Arrays.asList(1, null, 3));
            equal(r.getString(12), null);
          }
        }
      }
    }));
    CHECKS.put("transactions", () -> using(2, c -> {
      run(c[0], "drop table if exists j_tx; create table j_tx (a int primary key)");
      c[0].setAutoCommit(false);
      run(c[0], "insert into j_tx values (1)");
      equal(one(c[1], "select count(*) from j_tx"), "0");
      c[0].commit();
      run(c[0], "insert into j_tx values (2)");
      c[0].rollback();
      equal(one(c[1], "select count(*) from j_tx"), "1");
      c[0].setReadOnly(true);
      c[0].setTransactionIsolation(Connection.TRANSACTION_SERIALIZABLE);
      equal(one(c[0], "show transaction_isolation"), "serializable");
      fails("25006", () -> run(c[0], "insert into j_tx values (3)"));
      c[0].rollback();
      equal(one(c[1], "show default_transaction_isolation"), "read committed");
    }));
    CHECKS.put("savepoints", () -> using(1, c -> {
      run(c[0], "drop table if exists j_sp; create table j_sp (a int primary key)");
      c[0].setAutoCommit(false);
      for (int i = 0; i < 12; i++) {
        int n = i;
        run(c[0], "insert into j_sp values (" + i + ")");
        Savepoint s = c[0].setSavepoint("s");
        fails("23505", () -> one(c[0], "insert into j_sp values (?) returning a", n));
        fails("25P02", () -> one(c[0], "select 1"));
        c[0].rollback(s);
      }
      c[0].commit();
      equal(one(c[0], "select count(*) from j_sp"), "12");
    }));
    CHECKS.put("errors_in_transaction", () -> using(1, c -> {
      for (int i = 0; i < 8; i++) {
        c[0].setAutoCommit(false);
        fails("22012", () -> one(c[0], "select 1 / ?", 0));
        fails("25P02", () -> one(c[0], "select 1"));
        c[0].rollback();
        c[0].setAutoCommit(true);
        fails("42P01", () -> one(c[0], "select * from no_such_table where a = ?", 1));
        equal(one(c[0], "select ?::int", i), "" + i);
      }
    }));
    CHECKS.put("autosave", () -> using(1, c -> {
      c[0].setAutoCommit(false);
      for (int i = 0; i < 8; i++) {
        fails("22012", () -> one(c[0], "select 1 / ?", 0));
        equal(one(c[0], "select ?::int", i), "" + i);  // autosave=always has rolled back to before the error
      }
      c[0].rollback();
    }, "autosave", "always"));
    CHECKS.put("prepared_interleaved", () -> using(12, c -> {
      PreparedStatement[] own = new PreparedStatement[12];
      PreparedStatement[] shared = new PreparedStatement[12];
      for (int i = 0; i < 12; i++) {
        own[i] = c[i].prepareStatement("select ?::int + " + i);
        shared[i] = c[i].prepareStatement("select ?::int * 2");
      }
      for (int turn = 0; turn < 12; turn++) {
        for (int i = 0; i < 12; i++) {
          own[i].setInt(1, turn);
          shared[i].setInt(1, turn);
          try (ResultSet a = own[i].executeQuery(); ResultSet b = shared[i].executeQuery()) {
            a.next();
            b.next();
            equal(a.getInt(1), turn + i);
            equal(b.getInt(1), turn * 2);
          }
        }
      }
      for (int i = 0; i < 12; i++) own[i].close();
      for (int i = 0; i < 12; i++) equal(one(c[i], "select ?::int + 99", 1), "100");
    }));
    CHECKS.put("replan", () -> using(6, c -> {
      run(c[0], "drop table if exists j_replan; create table j_replan (a int); insert into j_replan values (1)");
      PreparedStatement[] s = new PreparedStatement[6];
      for (int i = 0; i < 6; i++) {
        s[i] = c[i].prepareStatement("select * from j_replan where a = ?");
        s[i].setInt(1, 1);
        for (int n = 0; n < 8; n++) s[i].executeQuery().close();
      }
      run(c[0], "alter table j_replan add b int default 2");
      for (int i = 0; i < 6; i++) {  // autosave apart, pgJDBC prepares again by itself outside of a transaction
        for (int n = 0; n < 3; n++) {
          try (ResultSet r = s[i].executeQuery()) {
            r.next();
            equal(r.getInt("a"), 1);
          }
        }
      }
      for (int i = 0; i < 6; i++) {
        using(1, fresh -> {
          for (int n = 0; n < 7; n++) {
            try (PreparedStatement p = fresh[0].prepareStatement("select * from j_replan where a = ?")) {
              p.setInt(1, 1);
              ResultSet r = p.executeQuery();
              r.next();
              equal(r.getInt("b"), 2);
            }
          }
        });
      }
    }));
    CHECKS.put("cursor", () -> using(3, c -> {
      ResultSet[] r = new ResultSet[3];
      for (int i = 0; i < 3; i++) {
        c[i].setAutoCommit(false);
        Statement s = c[i].createStatement();
        s.setFetchSize(10);
        r[i] = s.executeQuery("select " + i * 1000 + " + generate_series(1, 95)");
      }
      for (int n = 1; n <= 95; n++) {
        for (int i = 0; i < 3; i++) {
          equal(r[i].next(), true);
          equal(r[i].getInt(1), i * 1000 + n);
        }
      }
      for (int i = 0; i < 3; i++) {
        equal(r[i].next(), false);
        c[i].commit();
      }
    }));
    CHECKS.put("copy", () -> using(1, c -> {
      run(c[0], "drop table if exists j_copy; create table j_copy (a int, b text)");
      StringBuilder rows = new StringBuilder();
      for (int i = 0; i < 20000; i++) rows.append(i).append("\tzeile ").append(i).append(" ä\n");
      var copy = c[0].unwrap(PGConnection.class).getCopyAPI();
      equal(copy.copyIn("copy j_copy from stdin", new StringReader(rows.toString())), 20000L);
      StringWriter out = new StringWriter();
      copy.copyOut("copy (select * from j_copy order by a) to stdout", out);
      equal(out.toString().equals(rows.toString()), true);
      fails("22P02", () -> copy.copyIn("copy j_copy from stdin", new StringReader("x\ty\n".repeat(20000))));
      equal(one(c[0], "select count(*) from j_copy"), "20000");
      var cancelled = copy.copyIn("copy j_copy from stdin");
      cancelled.writeToCopy("1\tx\n".getBytes(), 0, 4);
      cancelled.cancelCopy();
      equal(one(c[0], "select count(*) from j_copy"), "20000");
    }));
    CHECKS.put("cancel", () -> using(3, c -> {
      Future<String> beside = Executors.newSingleThreadExecutor(DriveJdbc::daemon).submit(() -> one(c[1], "select 5 from pg_sleep(1.5)"));
      for (int i = 0; i < 3; i++) {
        Statement s = c[0].createStatement();
        Thread canceller = new Thread(() -> {
          try {
            Thread.sleep(250);
            s.cancel();
          } catch (Exception e) {
            throw new RuntimeException(e);
          }
        });
        canceller.start();
        fails("57014", () -> s.executeQuery("select pg_sleep(20)"));
        canceller.join();
        equal(one(c[0], "select 6"), "6");
        s.cancel();  // of what has ended
        equal(one(c[2], "select 7 from pg_sleep(0.02)"), "7");
      }
      equal(beside.get(), "5");
    }));
    CHECKS.put("query_timeout", () -> using(2, c -> {
      try (Statement s = c[0].createStatement()) {
        s.setQueryTimeout(1);
        fails("57014", () -> s.executeQuery("select pg_sleep(20)"));
      }
      equal(one(c[0], "select 1"), "1");
      equal(one(c[1], "show statement_timeout"), "0");
    }));
    CHECKS.put("big_row", () -> using(1, c -> {
      byte[] value = new byte[20 << 20];
      Arrays.fill(value, (byte) 200);
      try (PreparedStatement s = c[0].prepareStatement("select ?::bytea")) {
        s.setBytes(1, value);
        ResultSet r = s.executeQuery();
        r.next();
        equal(Arrays.equals(r.getBytes(1), value), true);
      }
    }));
    CHECKS.put("pipeline", () -> using(4, c -> {
      run(c[0], "drop table if exists j_batch; create table j_batch (c int, n int, primary key (c, n))");
      inThreads(4, i -> () -> {
        try (PreparedStatement s = c[i].prepareStatement("insert into j_batch values (?, ?)")) {
          for (int n = 0; n < 1500; n++) {
            s.setInt(1, i);
            s.setInt(2, n);
            s.addBatch();
          }
          equal(s.executeBatch().length, 1500);
        }
      });
      equal(one(c[0], "select count(*) from j_batch"), "6000");
      c[0].setAutoCommit(false);
      try (Statement s = c[0].createStatement()) {
        s.addBatch("insert into j_batch values (9, 1)");
        s.addBatch("insert into j_batch values (9, 1)");
        s.addBatch("insert into j_batch values (9, 2)");
        s.executeBatch();
        throw new AssertionError("no error");
      } catch (BatchUpdateException e) {
        equal(e.getSQLState(), "23505");
      }
      c[0].rollback();
      equal(one(c[0], "select count(*) from j_batch"), "6000");
      c[0].commit();
    }));
    CHECKS.put("rewritten_batch", () -> using(1, c -> {
      run(c[0], "drop table if exists j_rewritten; create table j_rewritten (n int)");
      try (PreparedStatement s = c[0].prepareStatement("insert into j_rewritten values (?)")) {
        for (int round = 0; round < 8; round++) {
          for (int n = 0; n < 130; n++) {
            s.setInt(1, n);
            s.addBatch();
          }
          s.executeBatch();
        }
      }
      equal(one(c[0], "select count(*) from j_rewritten"), "1040");
    }, "reWriteBatchedInserts", "true"));
    CHECKS.put("generated_keys", () -> using(1, c -> {
      run(c[0], "drop table if exists j_keys; create table j_keys (id serial primary key, n int)");
      try (PreparedStatement s = c[0].prepareStatement("insert into j_keys (n) values (?)", Statement.RETURN_GENERATED_KEYS)) {
        for (int n = 1; n <= 10; n++) {
          s.setInt(1, n);
          s.executeUpdate();
          ResultSet r = s.getGeneratedKeys();
          r.next();
          equal(r.getInt(1), n);
        }
      }
      ResultSet columns = c[0].getMetaData().getColumns(null, null, "j_keys", null);
      columns.next();
      equal(columns.getString("COLUMN_NAME"), "id");
    }));
    CHECKS.put("rapid_connects", () -> inThreads(15, i -> () -> {
      for (int n = 0; n < 4; n++) using(1, c -> equal(one(c[0], "select ?::int", i), "" + i));
    }));
    CHECKS.put("listen_notify", () -> using(2, c -> {
      run(c[0], "listen j_channel");
      run(c[1], "notify j_channel, 'one'");
      one(c[1], "select pg_notify('j_channel', ?)", "two");
      List<String> got = new ArrayList<>();
      for (int i = 0; i < 25 && got.size() < 2; i++) {
        PGNotification[] some = c[0].unwrap(PGConnection.class).getNotifications(200);
        if (some != null) for (PGNotification n : some) got.add(n.getParameter());
      }
      equal(got, List.of("one", "two"));
    }));
    CHECKS.put("temp_tables", () -> using(2, c -> {
      c[0].setAutoCommit(false);
      run(c[0], "create temp table j_temp (a int) on commit drop");
      run(c[0], "insert into j_temp values (1)");
      equal(one(c[0], "select count(*) from j_temp"), "1");
      fails("42P01", () -> one(c[1], "select * from j_temp"));
      c[0].commit();
    }));
    CHECKS.put("set_isolation", () -> {
      String[] baseline = new String[1];
      using(1, c -> baseline[0] = one(c[0], showLeaky()));
      using(4, setters -> {
        for (Connection c : setters) for (String[] s : LEAKY) run(c, "set " + s[0] + " = " + s[1]);
        using(6, others -> {
          for (Connection c : others) equal(one(c, showLeaky()), baseline[0]);
        });
      });
      using(4, others -> {
        for (Connection c : others) {
          c.setAutoCommit(false);
          equal(one(c, showLeaky()), baseline[0]);
        }
      });
    });
    CHECKS.put("schema_and_read_only", () -> using(6, c -> {
      for (int i = 0; i < 6; i++) {
        c[i].setSchema("path" + i);
        c[i].setClientInfo("ApplicationName", "app" + i);
        c[i].setReadOnly(i % 2 == 0);
      }
      for (int turn = 0; turn < 3; turn++) {
        for (int i = 0; i < 6; i++) {
          equal(c[i].getSchema() == null ? one(c[i], "show search_path") : c[i].getSchema(), "path" + i);
          equal(one(c[i], "show search_path"), "path" + i);
          equal(one(c[i], "show application_name"), "app" + i);
        }
      }
    }));
    CHECKS.put("startup_parameters", () -> {
      Connection[] c = new Connection[6];
      try {
        for (int i = 0; i < 6; i++) {
          c[i] = connect("ApplicationName", "app" + i, "currentSchema", "path" + i, "options",
              "-c statement_timeout=" + (i + 1) + "s -c lock_timeout=7s");
        }
        for (int turn = 0; turn < 3; turn++) {
          for (int i = 0; i < 6; i++) {
            equal(one(c[i], "select current_setting('application_name') || ' ' || current_setting('search_path') || ' ' || "
                      + "current_setting('statement_timeout') || ' ' || current_setting('lock_timeout')"),
                "app" + i + " path" + i + " " + (i + 1) + "s 7s");
          }
        }
        for (int i = 0; i < 6; i++) {
          run(c[i], "set search_path = x");
          run(c[i], "reset search_path");
          equal(one(c[i], "show search_path"), "path" + i);
        }
      } finally {
        for (Connection one : c) if (one != null) one.close();
      }
    });
    CHECKS.put("deallocate_all", () -> using(4, c -> {
      for (int round = 0; round < 3; round++) {
        for (Connection one : c) for (int n = 0; n < 7; n++) equal(one(one, "select ?::int + 1", n), "" + (n + 1));
        run(c[0], round == 0 ? "deallocate all" : "discard all");  // pgJDBC sees both and prepares anew
        for (Connection one : c) for (int n = 0; n < 7; n++) equal(one(one, "select ?::int + 1", n), "" + (n + 1));
      }
    }));
    CHECKS.put("concurrent_load", () -> {
      using(1, c -> run(c[0], "drop table if exists j_load; create table j_load (c int, n int, primary key (c, n))"));
      inThreads(16, i -> () -> using(1, c -> {
        c[0].setAutoCommit(false);
        for (int n = 0; n < 25; n++) {
          one(c[0], "insert into j_load values (?, ?) returning n", i, n);
          equal(one(c[0], "select count(*) from j_load where c = ?", i), "" + (n + 1));
          c[0].commit();
        }
      }));
      using(1, c -> equal(one(c[0], "select count(*) from j_load"), "400"));
    });
  }

  static Thread daemon(Runnable r) {
    Thread t = new Thread(r);
    t.setDaemon(true);
    return t;
  }

  static String json(String text) {
    StringBuilder out = new StringBuilder("\"");
    for (char ch : text.toCharArray()) {
      if (ch == '"' || ch == '\\') out.append('\\').append(ch);
      else if (ch < 32) out.append(String.format("\\u%04x", (int) ch));
      else out.append(ch);
    }
    return out.append('"').toString();
  }

  public static void main(String[] arguments) {
    Set<String> only = new HashSet<>(Arrays.asList(env("DRIVER_ONLY").split(",")));
    Set<String> skip = new HashSet<>(Arrays.asList(env("DRIVER_SKIP").split(",")));
    only.remove("");
    define();
    for (Map.Entry<String, Check> entry : CHECKS.entrySet()) {
      String name = entry.getKey();
      if (skip.contains(name) || (!only.isEmpty() && !only.contains(name))) continue;
      System.out.println("{\"begin\": " + json(name) + "}");
      String error = null;
      try {
        entry.getValue().run();
      } catch (Throwable t) {
        error = t.toString();
      }
      System.out.println("{\"check\": " + json(name) + ", \"ok\": " + (error == null) + ", \"error\": " + (error == null ? "null" : json(error)) + "}");
    }
    System.exit(0);
  }
}
