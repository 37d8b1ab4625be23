// Command peers-bench measures what DESIGN promises and prints one line for
// each figure:
//
//	BENCH <name> <value> <unit> target <op><value> <ok|short|->
//
// Ratios run both sides in turn in this process and give the median of the
// pairs: the machine may be slow or busy, but it is so for both. Nothing here
// decides whether a test passes.
package main

import (
	"flag"
	"fmt"
	"os"
	"regexp"
	"runtime/pprof"
	"slices"
	"strings"
	"time"
)

// A measure prints the lines it names, all in one run.
type measure struct {
	lines []string
	run   func(*bench) error
}

// wanted reports whether a name that a measure prints matches.
func (m measure) wanted(want *regexp.Regexp) bool {
	return slices.ContainsFunc(m.lines, want.MatchString)
}

// A bench is one run of the program.
type bench struct {
	dir    string // scratch, on a real disk
	rounds int
	fields int           // size of the big loads
	quiet  time.Duration // that node.idle watches idle devices
}

func measures() []measure {
	return []measure{
		{[]string{"sync.catchup.batch10", "sync.catchup.batch10.rate"}, func(b *bench) error { return b.catchUp("sync.catchup.batch10", 10, 0.6) }},
		{[]string{"sync.catchup.batch1", "sync.catchup.batch1.rate"}, func(b *bench) error { return b.catchUp("sync.catchup.batch1", 1, 0.8) }},
		{[]string{"sync.overwrite.random", "sync.overwrite.random.rate"}, (*bench).overwrite},
		{[]string{"sync.commit.one", "sync.commit.one.rate", "sync.commit.64", "sync.commit.64.rate"}, (*bench).commits},
		{[]string{"sync.rebuild"}, (*bench).rebuild},
		{[]string{"sync.disk.log"}, (*bench).disk},
		{[]string{"sync.idle", "sync.idle.rounds"}, (*bench).idle},
		{[]string{"sync.push3", "sync.push3.median"}, (*bench).push3},
		{[]string{"e2e.cities", "e2e.cities.import", "db.query", "db.query.http"}, (*bench).cities},
		{[]string{"app.call", "app.call.get"}, (*bench).appCall},
		{[]string{"app.start"}, (*bench).appStart},
		{[]string{"net.direct", "net.direct.rate"}, (*bench).direct},
		{[]string{"net.lan", "net.lan.connected"}, (*bench).lan},
		{[]string{"node.idle.memory", "node.idle.cpu", "node.idle.traffic"}, (*bench).idleNodes},
	}
}

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "peers-bench:", err)
		os.Exit(1)
	}
}

func run() error {
	only := flag.String("run", ".", "measure only names that match this `regexp`")
	rounds := flag.Int("rounds", 5, "pairs of runs for a ratio")
	fields := flag.Int("fields", 1_000_000, "fields in the big loads")
	scratch := flag.String("dir", "", "scratch `folder` on the disk to measure (default: the temporary folder)")
	quiet := flag.Duration("quiet", 2*time.Minute, "how long node.idle watches idle devices")
	profile := flag.String("cpuprofile", "", "write a CPU profile of our side and the other to this `file`")
	flag.Parse()
	want, err := regexp.Compile(*only)
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp(*scratch, "peers-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if *profile != "" {
		f, err := os.Create(*profile)
		if err != nil {
			return err
		}
		defer f.Close()
		if err := pprof.StartCPUProfile(f); err != nil {
			return err
		}
		defer pprof.StopCPUProfile()
	}
	b := &bench{dir: dir, rounds: *rounds, fields: *fields, quiet: *quiet}
	some := false
	for _, m := range measures() {
		if !m.wanted(want) {
			continue
		}
		some = true
		if err := m.run(b); err != nil {
			return fmt.Errorf("%s: %w", m.lines[0], err)
		}
	}
	if !some {
		return fmt.Errorf("no measure prints a line that matches %q", *only)
	}
	return nil
}

// line prints a figure. target begins with >= or <=; "-" means that there is
// none.
func line(name string, value float64, unit, target string) {
	verdict := "-"
	if target != "-" {
		var limit float64
		fmt.Sscan(target[2:], &limit)
		if verdict = "short"; strings.HasPrefix(target, ">=") == (value >= limit) || value == limit {
			verdict = "ok"
		}
	}
	fmt.Printf("BENCH %s %s %s target %s %s\n", name, format(value), unit, target, verdict)
}

func format(v float64) string {
	switch {
	case v >= 1000:
		return fmt.Sprintf("%.0f", v)
	case v >= 10:
		return fmt.Sprintf("%.1f", v)
	}
	return fmt.Sprintf("%.2f", v)
}

func median(v []float64) float64 {
	v = slices.Clone(v)
	slices.Sort(v)
	return v[len(v)/2]
}

// quantile of sorted or unsorted values, 0 to 1.
func quantile(v []float64, q float64) float64 {
	v = slices.Clone(v)
	slices.Sort(v)
	return v[min(int(q*float64(len(v))), len(v)-1)]
}
