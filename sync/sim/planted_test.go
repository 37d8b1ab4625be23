package sim

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// A planted bug is a change to the source of the code under test. The go command
// compiles it from an overlay, so production code has no switch to make it wrong.
type planted struct {
	name, file string
	edits      [][2]string // text that occurs once, and what takes its place
}

var bugs = []planted{
	{"tie-break left out", "../record/state.go", [][2]string{
		{"order = c.Value.Compare(s.Cells[i].Value)", "order = -1"},
	}},
	{"ack before commit", "../replica/session.go", [][2]string{
		{"	s.inflight += size\n", `	s.inflight += size
	_, last := p.Tips()
	s.out = append(s.out, outFrame{TypeAck, &tipsMessage{last.Stream.Namespace, vector.Append(nil, []group.Tip{last})}})
`},
	}},
	{"a run applied over a gap", "../group/ingest.go", [][2]string{
		{"	if best == nil {\n", "	if best == nil {\n		return x.extend(x.stage(bs[0]), &run, chain, bodies)\n	}\n	if false {\n"},
		{"		if run.First != 1 {\n", "		if false {\n"},
	}},
}

// plantedSeeds is within how many seeds each bug must be caught.
const plantedSeeds = "400"

// TestPlantedBugs proves that the simulator can fail: each bug is caught.
func TestPlantedBugs(t *testing.T) {
	for _, bug := range bugs {
		t.Run(bug.name, func(t *testing.T) {
			overlay := plant(t, bug)
			cmd := exec.CommandContext(t.Context(), "go", "test", "-vet=off", "-overlay="+overlay, "-run=^TestSim$", "-v", ".", "-share=0/1", "-first", "-seeds="+plantedSeeds)
			out, err := cmd.CombinedOutput()
			i := bytes.Index(out, []byte("to see it: "))
			if err == nil || i < 0 {
				t.Fatalf("not caught within %s seeds: %v\n%s", plantedSeeds, err, out[:min(len(out), 4000)])
			}
			t.Logf("caught: %.300s", out[bytes.Index(out, []byte("sim_test.go")):])
		})
	}
}

// plant writes the changed file and the overlay that puts it in the place of
// the real one.
func plant(t *testing.T, bug planted) string {
	t.Helper()
	file, err := filepath.Abs(bug.file)
	if err != nil {
		t.Fatal(err)
	}
	src, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range bug.edits {
		if bytes.Count(src, []byte(e[0])) != 1 {
			t.Fatalf("%s does not hold once:\n%s", bug.file, e[0])
		}
		src = bytes.Replace(src, []byte(e[0]), []byte(e[1]), 1)
	}
	dir := t.TempDir()
	changed, overlay := filepath.Join(dir, "changed.go"), filepath.Join(dir, "overlay.json")
	list, err := json.Marshal(map[string]map[string]string{"Replace": {file: changed}})
	if err != nil {
		t.Fatal(err)
	}
	for path, content := range map[string][]byte{changed: src, overlay: list} {
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return overlay
}
