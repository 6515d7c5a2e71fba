// pgx v4: statement cache "prepare" (default) and "describe" (variant), batches, CopyFrom, pgxpool.
package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgconn"
	"github.com/jackc/pgx/v4"
	"github.com/jackc/pgx/v4/pgxpool"
)

var ctx = context.Background()

func dsn(more string) string {
	text := fmt.Sprintf("host=%s port=%s user=%s password=%s dbname=%s sslmode=%s connect_timeout=15 %s",
		env("HOST"), env("PORT"), env("USER"), env("PASSWORD"), env("DATABASE"), sslmode("prefer"), more)
	if env("VARIANT") == "describe" {
		text += " statement_cache_mode=describe"
	}
	return text
}

func connect(more string) *pgx.Conn {
	c, err := pgx.Connect(ctx, dsn(more))
	must(err)
	return c
}

// using gives count connections to action and closes them.
func using(count int, action func(c []*pgx.Conn)) {
	var all []*pgx.Conn
	defer func() {
		for _, c := range all {
			_ = c.Close(ctx)
		}
	}()
	for i := 0; i < count; i++ {
		all = append(all, connect(""))
	}
	action(all)
}

type querier interface {
	QueryRow(ctx context.Context, query string, args ...interface{}) pgx.Row
	Exec(ctx context.Context, query string, args ...interface{}) (pgconn.CommandTag, error)
}

func text(q querier, query string, args ...interface{}) string {
	var value string
	must(q.QueryRow(ctx, query, args...).Scan(&value))
	return value
}

func number(q querier, query string, args ...interface{}) int {
	var value int
	must(q.QueryRow(ctx, query, args...).Scan(&value))
	return value
}

func exec(q querier, query string, args ...interface{}) {
	_, err := q.Exec(ctx, query, args...)
	must(err)
}

func fails(code string, err error) {
	var e *pgconn.PgError
	if !errors.As(err, &e) || e.Code != code {
		panic(fmt.Errorf("got error %v, want %s", err, code))
	}
}

func main() {
	check("connect", func() {
		using(1, func(c []*pgx.Conn) {
			equal(text(c[0], "select current_user || '/' || current_database()"), env("USER")+"/"+env("DATABASE"))
			expect(c[0].PgConn().PID() != 0, "no pid")
		})
	})
	check("types", func() {
		using(1, func(c []*pgx.Conn) {
			moment := time.Date(2024, 2, 29, 23, 59, 59, 123456000, time.UTC)
			var (
				n    int64
				f    float64
				s    string
				b    bool
				when time.Time
				raw  []byte
				list []int32
				none *string
			)
			for i := 0; i < 3; i++ {
				must(c[0].QueryRow(ctx, "select $1::bigint, $2::float8, $3::text, $4::bool, $5::timestamptz, $6::bytea, $7::int[], $8::text",
					int64(1)<<62, 1.5, "Grüße, 世界 🐘", true, moment, []byte{0, 1, 255}, []int32{1, 2, 3}, nil).
					Scan(&n, &f, &s, &b, &when, &raw, &list, &none))
				equal([]interface{}{n, f, s, b, when.UTC(), raw, list, none == nil},
					[]interface{}{int64(1) << 62, 1.5, "Grüße, 世界 🐘", true, moment, []byte{0, 1, 255}, []int32{1, 2, 3}, true})
			}
		})
	})
	check("transactions", func() {
		using(2, func(c []*pgx.Conn) {
			exec(c[0], "drop table if exists x_tx; create table x_tx (a int primary key)")
			must(c[0].BeginFunc(ctx, func(tx pgx.Tx) error {
				exec(tx, "insert into x_tx values ($1)", 1)
				equal(number(c[1], "select count(*) from x_tx"), 0)
				return nil
			}))
			tx, err := c[0].BeginTx(ctx, pgx.TxOptions{IsoLevel: pgx.Serializable})
			must(err)
			exec(tx, "insert into x_tx values ($1)", 2)
			must(tx.Rollback(ctx))
			equal(number(c[1], "select count(*) from x_tx"), 1)
		})
	})
	check("savepoints", func() {
		using(1, func(c []*pgx.Conn) {
			exec(c[0], "drop table if exists x_sp; create table x_sp (a int primary key)")
			tx, err := c[0].Begin(ctx)
			must(err)
			for i := 0; i < 5; i++ {
				exec(tx, "insert into x_sp values ($1)", i)
				nested, err := tx.Begin(ctx)
				must(err)
				_, err = nested.Exec(ctx, "insert into x_sp values ($1)", i)
				fails("23505", err)
				must(nested.Rollback(ctx))
			}
			must(tx.Commit(ctx))
			equal(number(c[0], "select count(*) from x_sp"), 5)
		})
	})
	check("errors_in_transaction", func() {
		using(1, func(c []*pgx.Conn) {
			for i := 0; i < 4; i++ {
				tx, err := c[0].Begin(ctx)
				must(err)
				_, err = tx.Exec(ctx, "select 1 / $1::int", 0)
				fails("22012", err)
				_, err = tx.Exec(ctx, "select 1")
				fails("25P02", err)
				must(tx.Rollback(ctx))
				equal(number(c[0], "select 10 / $1::int", 5), 2)
			}
		})
	})
	check("prepared_interleaved", func() {
		using(12, func(c []*pgx.Conn) {
			for i := range c {
				_, err := c[i].Prepare(ctx, "mine", fmt.Sprintf("select $1::int + %d", i))
				must(err)
			}
			for turn := 0; turn < 10; turn++ {
				for i := range c {
					if env("VARIANT") != "describe" { // which knows no names of statements
						equal(number(c[i], "mine", turn), turn+i)
					}
					equal(number(c[i], "select $1::int * 2", turn), turn*2)
				}
			}
			for i := range c {
				must(c[i].Deallocate(ctx, "mine"))
				equal(number(c[i], "select $1::int * 3", 1), 3)
			}
		})
	})
	check("simple_protocol", func() {
		using(8, func(c []*pgx.Conn) {
			for turn := 0; turn < 5; turn++ {
				for i := range c {
					equal(number(c[i], "select $1::int + $2::int", pgx.QuerySimpleProtocol(true), turn, i), turn+i)
				}
			}
		})
	})
	check("replan", func() {
		using(5, func(c []*pgx.Conn) {
			exec(c[0], "drop table if exists x_replan; create table x_replan (a int); insert into x_replan values (1)")
			for i := range c {
				equal(number(c[i], "select * from x_replan"), 1)
			}
			exec(c[0], "alter table x_replan add b int default 2")
			for i := range c { // pgx v4 is told once and prepares anew the next time
				var a, b int
				if err := c[i].QueryRow(ctx, "select * from x_replan").Scan(&a, &b); err != nil {
					var e *pgconn.PgError
					expect(errors.As(err, &e) && e.Code == "0A000", fmt.Sprint(err))
				}
				must(c[i].QueryRow(ctx, "select * from x_replan").Scan(&a, &b))
				equal(b, 2)
			}
		})
		for i := 0; i < 8; i++ {
			using(1, func(c []*pgx.Conn) {
				var a, b int
				must(c[0].QueryRow(ctx, "select * from x_replan").Scan(&a, &b))
				equal(b, 2)
			})
		}
	})
	check("pipeline", func() {
		using(6, func(c []*pgx.Conn) {
			exec(c[0], "drop table if exists x_batch; create table x_batch (c int, n int, primary key (c, n))")
			inGoroutines(6, func(i int) {
				batch := &pgx.Batch{}
				for n := 0; n < 200; n++ {
					batch.Queue("insert into x_batch values ($1, $2)", i, n)
					batch.Queue("select $1::int + 1", n)
				}
				results := c[i].SendBatch(ctx, batch)
				for n := 0; n < 200; n++ {
					_, err := results.Exec()
					must(err)
					var got int
					must(results.QueryRow().Scan(&got))
					equal(got, n+1)
				}
				must(results.Close())
			})
			batch := &pgx.Batch{}
			for _, n := range []int{1, 2, 1, 3} {
				batch.Queue("insert into x_batch values (9, $1)", n)
			}
			fails("23505", c[1].SendBatch(ctx, batch).Close())
			equal(number(c[1], "select count(*) from x_batch"), 1200)
		})
	})
	check("copy", func() {
		using(1, func(c []*pgx.Conn) {
			exec(c[0], "drop table if exists x_copy; create table x_copy (a int, b text)")
			var rows [][]interface{}
			for i := 0; i < 20000; i++ {
				rows = append(rows, []interface{}{int32(i), fmt.Sprintf("zeile %d ä", i)})
			}
			count, err := c[0].CopyFrom(ctx, pgx.Identifier{"x_copy"}, []string{"a", "b"}, pgx.CopyFromRows(rows))
			must(err)
			equal(count, int64(20000))
			var out bytes.Buffer
			_, err = c[0].PgConn().CopyTo(ctx, &out, "copy (select a from x_copy order by a limit 3) to stdout")
			must(err)
			equal(out.String(), "0\n1\n2\n")
			_, err = c[0].PgConn().CopyFrom(ctx, bytes.NewBufferString("x\ty\n"), "copy x_copy from stdin")
			fails("22P02", err)
			equal(number(c[0], "select count(*) from x_copy"), 20000)
		})
	})
	check("cancel", func() {
		using(3, func(c []*pgx.Conn) {
			beside := make(chan int)
			go func() { beside <- number(c[1], "select 5 from pg_sleep(1.2)") }()
			go func() {
				time.Sleep(300 * time.Millisecond)
				_ = c[0].PgConn().CancelRequest(ctx)
			}()
			_, err := c[0].Exec(ctx, "select pg_sleep(20)")
			fails("57014", err)
			equal(number(c[0], "select 6"), 6)
			equal(number(c[2], "select 7 from pg_sleep(0.05)"), 7)
			equal(<-beside, 5)
		})
	})
	check("big_row", func() {
		using(1, func(c []*pgx.Conn) {
			value := bytes.Repeat([]byte{0, 200}, 10<<20)
			var got []byte
			must(c[0].QueryRow(ctx, "select $1::bytea", value).Scan(&got))
			expect(bytes.Equal(got, value), "bytes differ")
		})
	})
	check("rapid_connects", func() {
		inGoroutines(20, func(i int) {
			for n := 0; n < 4; n++ {
				using(1, func(c []*pgx.Conn) { equal(number(c[0], "select $1::int", i), i) })
			}
		})
	})
	check("pool", func() {
		config, err := pgxpool.ParseConfig(dsn("pool_max_conns=10"))
		must(err)
		pool, err := pgxpool.ConnectConfig(ctx, config)
		must(err)
		defer pool.Close()
		exec(pool, "drop table if exists x_load; create table x_load (c int, n int, primary key (c, n))")
		inGoroutines(20, func(i int) {
			for n := 0; n < 20; n++ {
				must(pool.BeginFunc(ctx, func(tx pgx.Tx) error {
					exec(tx, "insert into x_load values ($1, $2)", i, n)
					equal(number(tx, "select count(*) from x_load where c = $1", i), n+1)
					return nil
				}))
			}
		})
		equal(number(pool, "select count(*) from x_load"), 400)
	})
	check("listen_notify", func() {
		using(2, func(c []*pgx.Conn) {
			exec(c[0], "listen x_channel")
			exec(c[1], "select pg_notify('x_channel', $1)", "one")
			limited, cancel := context.WithTimeout(ctx, 5*time.Second)
			defer cancel()
			n, err := c[0].WaitForNotification(limited)
			must(err)
			equal(n.Payload, "one")
		})
	})
	check("set_isolation", func() {
		show := "select current_setting('timezone') || current_setting('search_path') || current_setting('statement_timeout')"
		using(9, func(c []*pgx.Conn) {
			baseline := text(c[8], show)
			for i := range c[:4] {
				exec(c[i], "set timezone = 'Asia/Tokyo'")
				exec(c[i], fmt.Sprintf("set search_path = s%d", i))
				exec(c[i], "set statement_timeout = 12345")
			}
			for i := range c[4:] {
				equal(text(c[4+i], show), baseline)
			}
			for i := range c[:4] {
				equal(text(c[i], show), fmt.Sprintf("Asia/Tokyos%d12345ms", i))
			}
		})
	})
	check("startup_parameters", func() {
		inGoroutines(6, func(i int) {
			c := connect(fmt.Sprintf("application_name=app%d search_path=path%d statement_timeout=%d", i, i, 1000*(i+1)))
			defer c.Close(ctx)
			for n := 0; n < 5; n++ {
				equal(text(c, "select current_setting('application_name') || ' ' || current_setting('search_path') || ' ' || "+
					"current_setting('statement_timeout')"), fmt.Sprintf("app%d path%d %ds", i, i, i+1))
			}
		})
	})
	runChecks()
}
