// What the two Go programs share. A check panics when it fails; two lines of JSON go out for each:
// {"begin"} before, so that the runner knows what hung, and {"check", "ok", "error"} after.
package main

import (
	"encoding/json"
	"fmt"
	"os"
	"reflect"
	"strings"
	"sync"
)

type namedCheck struct {
	name string
	run  func()
}

var checks []namedCheck

func check(name string, run func()) { checks = append(checks, namedCheck{name, run}) }

func env(name string) string { return os.Getenv("DRIVER_" + name) }

// What the data source says where nothing has to go over TLS.
func sslmode(otherwise string) string {
	if env("TLS") != "" {
		return "require"
	}
	return otherwise
}

func names(variable string) map[string]bool {
	found := map[string]bool{}
	for _, name := range strings.Split(env(variable), ",") {
		if name != "" {
			found[name] = true
		}
	}
	return found
}

// must is for calls that may not fail.
func must(err error) {
	if err != nil {
		panic(err)
	}
}

func equal(got, want interface{}) {
	if !reflect.DeepEqual(got, want) {
		panic(fmt.Errorf("got %.200v, want %.200v", got, want))
	}
}

func expect(condition bool, what string) {
	if !condition {
		panic(fmt.Errorf("%s", what))
	}
}

// inGoroutines runs work(0) ... work(count-1) at once and panics with the first panic of one.
func inGoroutines(count int, work func(i int)) {
	var group sync.WaitGroup
	failures := make(chan interface{}, count)
	for i := 0; i < count; i++ {
		group.Add(1)
		go func(i int) {
			defer group.Done()
			defer func() {
				if failure := recover(); failure != nil {
					failures <- failure
				}
			}()
			work(i)
		}(i)
	}
	group.Wait()
	select {
	case failure := <-failures:
		panic(failure)
	default:
	}
}

func attempt(run func()) (failure interface{}) {
	defer func() { failure = recover() }()
	run()
	return nil
}

func runChecks() {
	only, skip, out := names("ONLY"), names("SKIP"), json.NewEncoder(os.Stdout)
	for _, c := range checks {
		if skip[c.name] || (len(only) > 0 && !only[c.name]) {
			continue
		}
		must(out.Encode(map[string]string{"begin": c.name}))
		result := map[string]interface{}{"check": c.name, "ok": true, "error": nil}
		if failure := attempt(c.run); failure != nil {
			result["ok"], result["error"] = false, fmt.Sprint(failure)
		}
		must(out.Encode(result))
	}
}
