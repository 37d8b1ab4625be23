package main

import (
	"os"
	"os/exec"
	"strconv"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

// TestScript runs the stories in testdata/script. Their commands are this test's
// binary, without a terminal; "exits N" runs one that must end with status N.
func TestScript(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script",
		Setup: func(e *testscript.Env) error {
			bin := e.WorkDir + "/.bin"
			e.Setenv("PATH", bin+":"+os.Getenv("PATH"))
			e.Setenv(envCommand, "1")
			if err := os.Mkdir(bin, 0o700); err != nil {
				return err
			}
			return os.Symlink(self, bin+"/peers-runtime")
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"peers-runtime": func(ts *testscript.TestScript, neg bool, args []string) {
				if neg {
					ts.Fatalf("say which status: exits N peers-runtime …")
				}
				ts.Check(ts.Exec("peers-runtime", args...))
			},
			"exits": func(ts *testscript.TestScript, _ bool, args []string) {
				want, err := strconv.Atoi(args[0])
				ts.Check(err)
				got := 0
				if err := ts.Exec(args[1], args[2:]...); err != nil {
					exit, ok := err.(*exec.ExitError)
					if !ok {
						ts.Fatalf("%v", err)
					}
					got = exit.ExitCode()
				}
				if got != want {
					ts.Fatalf("it exits with %d, want %d", got, want)
				}
			},
		},
	})
}
