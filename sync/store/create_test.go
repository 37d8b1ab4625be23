package store

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestCreateInterrupted stops a creation before each of its steps, as a crash
// does: at path there is then nothing or a complete database, the next Open
// succeeds, and nothing is left over.
func TestCreateInterrupted(t *testing.T) {
	var steps []string
	note := func(s string) error { steps = append(steps, s); return nil }
	if err := create(filepath.Join(t.TempDir(), "db"), header{kind: "test", version: 1}, note); err != nil {
		t.Fatal(err)
	}
	if want := []string{"initialise", "link", "unlink", "sync"}; !slices.Equal(steps, want) {
		t.Fatalf("steps %q, want %q", steps, want)
	}
	crash := errors.New("crash")
	for i, stop := range steps {
		dir := t.TempDir()
		path := filepath.Join(dir, "db")
		err := create(path, header{kind: "test", version: 1}, func(s string) error {
			if s == stop {
				return crash
			}
			return nil
		})
		if err != crash {
			t.Fatalf("%s: %v", stop, err)
		}
		if _, err := os.Stat(path); (err == nil) != (i >= 2) {
			t.Errorf("stopped before %s, the file: %v", stop, err)
		} else if err == nil {
			if err := Check(path); err != nil {
				t.Errorf("stopped before %s: %v", stop, err)
			}
		}
		db, err := Open(path, Options{Kind: "test", Version: 1})
		if err != nil {
			t.Fatalf("stopped before %s: %v", stop, err)
		}
		if err := db.Close(); err != nil {
			t.Error(err)
		}
		left, err := os.ReadDir(dir)
		if err != nil || len(left) != 1 || left[0].Name() != "db" {
			t.Errorf("stopped before %s, left: %v, %v", stop, left, err)
		}
	}
}

// TestCreateNeverReplaces: a database that appears while another is being made
// beside it stays.
func TestCreateNeverReplaces(t *testing.T) {
	path := filepath.Join(t.TempDir(), "db")
	err := create(path, header{kind: "loser", version: 1}, func(s string) error {
		if s == "link" {
			return create(path, header{kind: "winner", version: 1}, func(string) error { return nil })
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Open(path, Options{Kind: "loser", Version: 1}); err == nil || !strings.Contains(err.Error(), `"winner"`) {
		t.Errorf("the later database replaced the first: %v", err)
	}
}
