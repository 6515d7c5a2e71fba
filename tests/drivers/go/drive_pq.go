// lib/pq through database/sql: the unnamed statement over Syncs, and binary_parameters (variant "binary").
package main

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/lib/pq"
)

func dsn(more string) string {
	text := fmt.Sprintf("host=%s port=%s user=%s password=%s dbname=%s sslmode=%s connect_timeout=15 %s",
		env("HOST"), env("PORT"), env("USER"), env("PASSWORD"), env("DATABASE"), sslmode("disable"), more)
	if env("VARIANT") == "binary" {
		text += " binary_parameters=yes"
	}
	return text
}

func open(connections int, more string) *sql.DB {
	db, err := sql.Open("postgres", dsn(more))
	must(err)
	db.SetMaxOpenConns(connections)
	db.SetMaxIdleConns(connections)
	return db
}

type querier interface {
	QueryRowContext(ctx context.Context, query string, args ...interface{}) *sql.Row
	ExecContext(ctx context.Context, query string, args ...interface{}) (sql.Result, error)
}

var ctx = context.Background()

func one(q querier, query string, args ...interface{}) string {
	var value sql.NullString
	must(q.QueryRowContext(ctx, query, args...).Scan(&value))
	return value.String
}

func exec(q querier, query string, args ...interface{}) {
	_, err := q.ExecContext(ctx, query, args...)
	must(err)
}

func fails(code string, err error) {
	var e *pq.Error
	if !errors.As(err, &e) || string(e.Code) != code {
		panic(fmt.Errorf("got error %v, want %s", err, code))
	}
}

func connections(db *sql.DB, count int) []*sql.Conn {
	var all []*sql.Conn
	for i := 0; i < count; i++ {
		c, err := db.Conn(ctx)
		must(err)
		all = append(all, c)
	}
	return all
}

func main() {
	check("connect", func() {
		db := open(1, "")
		defer db.Close()
		must(db.Ping())
		equal(one(db, "select current_user || '/' || current_database()"), env("USER")+"/"+env("DATABASE"))
	})
	check("types", func() {
		db := open(1, "")
		defer db.Close()
		moment := time.Date(2024, 2, 29, 23, 59, 59, 123456000, time.UTC)
		var (
			n     int64
			f     float64
			s     string
			b     bool
			when  time.Time
			raw   []byte
			list  []int64
			empty sql.NullString
		)
		must(db.QueryRow("select $1::bigint, $2::float8, $3::text, $4::bool, $5::timestamptz, $6::bytea, $7::bigint[], $8::text",
			int64(1)<<62, 1.5, "Grüße, 世界 🐘", true, moment, []byte{0, 1, 255}, pq.Array([]int64{1, 2, 3}), nil).
			Scan(&n, &f, &s, &b, &when, &raw, pq.Array(&list), &empty))
		equal([]interface{}{n, f, s, b, when.UTC(), raw, list, empty.Valid},
			[]interface{}{int64(1) << 62, 1.5, "Grüße, 世界 🐘", true, moment, []byte{0, 1, 255}, []int64{1, 2, 3}, false})
	})
	check("transactions", func() {
		db := open(4, "")
		defer db.Close()
		exec(db, "drop table if exists g_tx; create table g_tx (a int primary key)")
		tx, err := db.Begin()
		must(err)
		exec(tx, "insert into g_tx values ($1)", 1)
		equal(one(db, "select count(*) from g_tx"), "0")
		must(tx.Commit())
		tx, err = db.BeginTx(ctx, &sql.TxOptions{Isolation: sql.LevelSerializable, ReadOnly: true})
		must(err)
		equal(one(tx, "show transaction_isolation"), "serializable")
		_, err = tx.Exec("insert into g_tx values ($1)", 2)
		fails("25006", err)
		must(tx.Rollback())
		equal(one(db, "select count(*) from g_tx"), "1")
	})
	check("savepoints", func() {
		db := open(1, "")
		defer db.Close()
		exec(db, "drop table if exists g_sp; create table g_sp (a int primary key)")
		tx, err := db.Begin()
		must(err)
		for i := 0; i < 5; i++ {
			exec(tx, "insert into g_sp values ($1)", i)
			exec(tx, "savepoint s")
			_, err = tx.Exec("insert into g_sp values ($1)", i)
			fails("23505", err)
			exec(tx, "rollback to savepoint s")
		}
		must(tx.Commit())
		equal(one(db, "select count(*) from g_sp"), "5")
	})
	check("errors_in_transaction", func() {
		db := open(1, "")
		defer db.Close()
		for i := 0; i < 4; i++ {
			tx, err := db.Begin()
			must(err)
			_, err = tx.Exec("select 1 / $1::int", 0)
			fails("22012", err)
			_, err = tx.Exec("select 1 where $1::int = 1", 0)
			fails("25P02", err)
			must(tx.Rollback())
			_, err = db.Exec("select * from no_such_table where a = $1", 1)
			fails("42P01", err)
			equal(one(db, "select $1::int", i), fmt.Sprint(i))
		}
	})
	check("unnamed_over_syncs", func() {
		db := open(20, "")
		defer db.Close()
		inGoroutines(20, func(i int) {
			for n := 0; n < 40; n++ {
				equal(one(db, fmt.Sprintf("select $1::int + %d from (select $2::text) as unused", i), n, "x"+strings.Repeat("y", n)), fmt.Sprint(i+n))
			}
		})
	})
	check("prepared_interleaved", func() {
		db := open(12, "")
		defer db.Close()
		all := connections(db, 12)
		var statements []*sql.Stmt
		for i, c := range all {
			s, err := c.PrepareContext(ctx, fmt.Sprintf("select $1::int + %d", i))
			must(err)
			statements = append(statements, s)
		}
		for turn := 0; turn < 10; turn++ {
			for i, s := range statements {
				var got int
				must(s.QueryRow(turn).Scan(&got))
				equal(got, turn+i)
			}
		}
		for _, s := range statements {
			must(s.Close())
		}
		for _, c := range all {
			equal(one(c, "select $1::int", 5), "5")
			must(c.Close())
		}
	})
	check("prepared_pool", func() {
		db := open(10, "")
		defer db.Close()
		s, err := db.Prepare("select $1::int * 2") // database/sql prepares it on every connection by itself
		must(err)
		inGoroutines(20, func(i int) {
			for n := 0; n < 20; n++ {
				var got int
				must(s.QueryRow(n).Scan(&got))
				equal(got, n*2)
			}
		})
		must(s.Close())
	})
	check("replan", func() {
		db := open(5, "")
		defer db.Close()
		exec(db, "drop table if exists g_replan; create table g_replan (a int); insert into g_replan values (1)")
		var statements []*sql.Stmt
		for _, c := range connections(db, 4) {
			s, err := c.PrepareContext(ctx, "select * from g_replan")
			must(err)
			var a int
			must(s.QueryRow().Scan(&a))
			statements = append(statements, s)
		}
		exec(db, "alter table g_replan add b int default 2")
		for _, s := range statements { // lib/pq keeps the description of its Prepare
			var a int
			if err := s.QueryRow().Scan(&a); err != nil {
				fails("0A000", err)
			}
		}
		for i := 0; i < 8; i++ {
			fresh := open(1, "")
			s, err := fresh.Prepare("select * from g_replan")
			must(err)
			var a, b int
			must(s.QueryRow().Scan(&a, &b))
			equal(b, 2)
			must(fresh.Close())
		}
	})
	check("cursor", func() {
		db := open(1, "")
		defer db.Close()
		tx, err := db.Begin()
		must(err)
		exec(tx, "declare c cursor for select generate_series(1, 1000)")
		sum := 0
		for {
			rows, err := tx.Query("fetch 77 from c")
			must(err)
			count := 0
			for rows.Next() {
				var n int
				must(rows.Scan(&n))
				sum, count = sum+n, count+1
			}
			must(rows.Err())
			if count == 0 {
				break
			}
		}
		must(tx.Commit())
		equal(sum, 500500)
	})
	check("copy", func() {
		db := open(1, "")
		defer db.Close()
		exec(db, "drop table if exists g_copy; create table g_copy (a int, b text)")
		tx, err := db.Begin()
		must(err)
		s, err := tx.Prepare(pq.CopyIn("g_copy", "a", "b"))
		must(err)
		for i := 0; i < 20000; i++ {
			_, err = s.Exec(i, fmt.Sprintf("zeile %d ä\t\\", i))
			must(err)
		}
		_, err = s.Exec()
		must(err)
		must(s.Close())
		must(tx.Commit())
		equal(one(db, "select count(*) || ' ' || max(b) from g_copy where b like 'zeile 77 %'"), "1 zeile 77 ä\t\\")
		tx, err = db.Begin()
		must(err)
		s, err = tx.Prepare(pq.CopyIn("g_copy", "a", "b"))
		must(err)
		_, _ = s.Exec("nonsense", "x")
		_, err = s.Exec()
		fails("22P02", err)
		_ = tx.Rollback()
		equal(one(db, "select count(*) from g_copy"), "20000")
	})
	check("cancel", func() {
		db := open(4, "")
		defer db.Close()
		beside := make(chan string)
		go func() { beside <- one(db, "select 5 from pg_sleep(1.5)") }()
		for i := 0; i < 4; i++ {
			limited, cancel := context.WithTimeout(ctx, 200*time.Millisecond)
			_, err := db.ExecContext(limited, "select pg_sleep(20)")
			cancel()
			expect(err != nil, "not cancelled")
			equal(one(db, "select 6 from pg_sleep(0.02)"), "6")
		}
		equal(<-beside, "5")
	})
	check("big_row", func() {
		db := open(1, "")
		defer db.Close()
		value := bytes.Repeat([]byte{0, 200}, 10<<20)
		var got []byte
		must(db.QueryRow("select $1::bytea", value).Scan(&got))
		expect(bytes.Equal(got, value), "bytes differ")
	})
	check("rapid_connects", func() {
		inGoroutines(20, func(i int) {
			for n := 0; n < 4; n++ {
				db := open(1, "")
				equal(one(db, "select $1::int", i), fmt.Sprint(i))
				must(db.Close())
			}
		})
	})
	check("listen_notify", func() {
		db := open(1, "")
		defer db.Close()
		listener := pq.NewListener(dsn(""), 100*time.Millisecond, time.Second, nil)
		defer listener.Close()
		must(listener.Listen("g_channel"))
		exec(db, "select pg_notify('g_channel', $1)", "one")
		exec(db, "notify g_channel, 'two'")
		for _, want := range []string{"one", "two"} {
			select {
			case n := <-listener.Notify:
				equal(n.Extra, want)
			case <-time.After(5 * time.Second):
				panic("no notification in 5 s")
			}
		}
		must(listener.Ping())
	})
	check("set_isolation", func() {
		db := open(10, "")
		defer db.Close()
		show := "select current_setting('timezone') || current_setting('search_path') || current_setting('statement_timeout') || " +
			"coalesce(current_setting('my.setting', true), '') || current_setting('default_transaction_read_only')"
		baseline := one(db, show)
		all := connections(db, 9)
		for i, c := range all[:4] {
			exec(c, "set timezone = 'Asia/Tokyo'")
			exec(c, fmt.Sprintf("set search_path = s%d", i))
			exec(c, "set statement_timeout = 12345")
			exec(c, "set my.setting = 'secret'")
			exec(c, "set default_transaction_read_only = on")
		}
		for _, c := range all[4:] {
			equal(one(c, show), baseline)
		}
		for i, c := range all[:4] {
			equal(one(c, show), fmt.Sprintf("Asia/Tokyos%d12345mssecreton", i))
		}
		for _, c := range all {
			must(c.Close())
		}
	})
	check("startup_parameters", func() {
		for turn := 0; turn < 2; turn++ {
			inGoroutines(6, func(i int) {
				db := open(2, fmt.Sprintf("application_name=app%d search_path=path%d statement_timeout=%d", i, i, 1000*(i+1)))
				defer db.Close()
				for n := 0; n < 5; n++ {
					equal(one(db, "select current_setting('application_name') || ' ' || current_setting('search_path') || ' ' || "+
						"current_setting('statement_timeout') || $1", "!"), fmt.Sprintf("app%d path%d %ds!", i, i, i+1))
				}
			})
		}
	})
	check("concurrent_load", func() {
		db := open(20, "")
		defer db.Close()
		exec(db, "drop table if exists g_load; create table g_load (c int, n int, primary key (c, n))")
		inGoroutines(20, func(i int) {
			for n := 0; n < 25; n++ {
				tx, err := db.Begin()
				must(err)
				exec(tx, "insert into g_load values ($1, $2)", i, n)
				equal(one(tx, "select count(*) from g_load where c = $1", i), fmt.Sprint(n+1))
				must(tx.Commit())
			}
		})
		equal(one(db, "select count(*) from g_load"), "500")
	})
	runChecks()
}
