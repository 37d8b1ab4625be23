package main

import (
	"context"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"github.com/peers-run/peers-runtime/internal/fault"
	"github.com/peers-run/peers-runtime/internal/tty"
	"github.com/peers-run/peers-runtime/runtime/control"
	"github.com/peers-run/peers-runtime/sync/record"
)

func newDB(e *env) *cobra.Command {
	c := &cobra.Command{Use: "db", Short: "Read and write apps' data; APP.COLLECTION names a collection"}
	c.AddCommand(newDBGet(e), newDBQuery(e), newDBPut(e), newDBImport(e))
	return c
}

// target reads APP.COLLECTION.
func target(s string) (control.Target, error) {
	app, coll, ok := strings.Cut(s, ".")
	if !ok || app == "" || coll == "" {
		return control.Target{}, usage("%s is not APP.COLLECTION", fault.Quote(s))
	}
	return control.Target{App: app, Collection: coll}, nil
}

func (e *env) showRecord(r control.Record) {
	b, err := json.Marshal(r.Fields)
	if err != nil {
		return
	}
	e.say("%s %s", r.ID, tty.Printable(string(b)))
}

func newDBGet(e *env) *cobra.Command {
	return &cobra.Command{
		Use: "get APP.COLLECTION RECORD", Short: "Print one record", Args: cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			t, err := target(args[0])
			if err != nil {
				return err
			}
			var r control.Record
			if err := e.call(cmd.Context(), "db.get", control.GetRequest{Target: t, Record: args[1]}, &r); err != nil {
				return err
			}
			return e.print(r, func() { e.showRecord(r) })
		},
	}
}

func newDBQuery(e *env) *cobra.Command {
	var q control.QueryRequest
	var equal []string
	c := &cobra.Command{Use: "query APP.COLLECTION", Short: "Print records, by an index if one is named", Args: cobra.ExactArgs(1)}
	f := c.Flags()
	f.StringVar(&q.Index, "index", "", "`name` of the index")
	f.StringArrayVar(&equal, "equal", nil, "with --index: JSON `value` of its next field")
	f.StringVar(&q.Prefix, "prefix", "", "with --index: beginning of its text")
	f.StringVar(&q.Words, "words", "", "with --index: words to find in a words index")
	f.BoolVar(&q.Descending, "descending", false, "from the last")
	f.IntVar(&q.Limit, "limit", 50, "records to print, at most 1000")
	f.BytesBase64Var(&q.Cursor, "cursor", nil, "where the page before ended (\"next\" in JSON)")
	c.RunE = func(cmd *cobra.Command, args []string) error {
		var err error
		if q.Target, err = target(args[0]); err != nil {
			return err
		}
		for _, v := range equal {
			q.Equal = append(q.Equal, json.RawMessage(v))
		}
		var page control.Page
		if err := e.call(cmd.Context(), "db.query", q, &page); err != nil {
			return err
		}
		return e.print(page, func() {
			for _, r := range page.Records {
				e.showRecord(r)
			}
		})
	}
	return c
}

func newDBPut(e *env) *cobra.Command {
	var p control.RecordPut
	c := &cobra.Command{
		Use: "put APP.COLLECTION FIELD=VALUE…", Short: "Write one record; values are JSON, or text", Args: cobra.MinimumNArgs(1),
	}
	c.Flags().StringVar(&p.ID, "record", "", "`id` of the record (default: a new one)")
	c.Flags().StringSliceVar(&p.Key, "key", nil, "`fields` whose values name the record, so that writing again updates it")
	c.Flags().BoolVar(&p.Delete, "delete", false, "delete the record")
	c.RunE = func(cmd *cobra.Command, args []string) error {
		t, err := target(args[0])
		if err != nil {
			return err
		}
		p.Fields = map[string]json.RawMessage{}
		for _, a := range args[1:] {
			name, value, ok := strings.Cut(a, "=")
			if !ok {
				return usage("%s is not FIELD=VALUE", fault.Quote(a))
			}
			if p.Fields[name] = json.RawMessage(value); !json.Valid([]byte(value)) {
				text, err := json.Marshal(value)
				if err != nil {
					return err
				}
				p.Fields[name] = text
			}
		}
		var answer control.PutAnswer
		if err := e.call(cmd.Context(), "db.put", control.PutRequest{Target: t, Puts: []control.RecordPut{p}}, &answer); err != nil {
			return err
		}
		return e.print(answer, func() { e.say("%s", answer.IDs[0]) })
	}
	return c
}

func newDBImport(e *env) *cobra.Command {
	var key []string
	c := &cobra.Command{
		Use: "import APP.COLLECTION FILE", Short: "Import a CSV file whose first line names fields; - reads standard input", Args: cobra.ExactArgs(2),
	}
	c.Flags().StringSliceVar(&key, "key", nil, "`columns` whose values name a record: importing again updates instead of adding")
	c.RunE = func(cmd *cobra.Command, args []string) error {
		t, err := target(args[0])
		if err != nil {
			return err
		}
		in := e.in
		var size int64
		if args[1] != "-" {
			f, err := os.Open(args[1])
			if err != nil {
				return fault.Wrap(err, "import", "name a CSV file, or - for standard input")
			}
			defer f.Close()
			info, err := f.Stat()
			if err == nil && info.IsDir() {
				err = fmt.Errorf("%s is a directory", args[1])
			}
			if err != nil {
				return fault.Wrap(err, "import", "name a CSV file, or - for standard input")
			}
			size = info.Size()
			in = f
		}
		began := time.Now()
		done, err := e.importCSV(cmd.Context(), t, key, in, size)
		if err != nil {
			return err
		}
		took := time.Since(began)
		result := map[string]any{"rows": done.rows, "changed": done.changed, "seconds": took.Seconds()}
		return e.print(result, func() {
			e.say("%d rows in %s, %.0f a second; %d records changed", done.rows, took.Round(time.Millisecond), float64(done.rows)/took.Seconds(), done.changed)
		})
	}
	return c
}

type imported struct{ rows, changed int }

// importRows is how many rows go in one transaction, and importFlight how many
// transactions are under way at once: the runtime puts those that wait into one
// write to the disk, and index pages are written once for all of them.
const (
	importRows   = 1000
	importFlight = 16
)

// importCSV sends rows in transactions of importRows. A row that is refused
// names its line; what was sent before it stays.
func (e *env) importCSV(ctx context.Context, t control.Target, key []string, in io.Reader, size int64) (imported, error) {
	client, err := control.Dial(e.home)
	if err != nil {
		return imported{}, err
	}
	counter := &countingReader{r: in}
	r := csv.NewReader(counter)
	r.ReuseRecord = false
	columns, err := r.Read()
	if err != nil {
		return imported{}, fault.New(fault.Invalid, "import", "the first line names the fields", "no header: %w", err)
	}
	columns[0] = strings.TrimPrefix(columns[0], "\ufeff")
	if err := isText(columns, 1); err != nil {
		return imported{}, err
	}
	var bar *tty.Progress
	if f, ok := e.err.(*os.File); ok && !e.json {
		status := tty.NewStatus(f)
		defer status.Close()
		bar = tty.NewProgress(status, "importing", tty.Bytes, size)
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var mu sync.Mutex
	var sum imported
	slots := make(chan struct{}, importFlight)
	var wg sync.WaitGroup
	seen := int64(0)
	for {
		rows, lines, err := readRows(r)
		if err != nil {
			hint := fault.HintOf(err)
			if hint == "" {
				hint = "mend the file there"
			}
			cancel(fault.New(fault.Invalid, "import", hint+"; with --key it may be imported again", "%w", err))
			break
		}
		if len(rows) == 0 {
			break
		}
		select {
		case slots <- struct{}{}:
		case <-ctx.Done():
		}
		if ctx.Err() != nil {
			break
		}
		wg.Go(func() {
			defer func() { <-slots }()
			var a control.PutAnswer
			if err := client.Call(ctx, "db.import", control.ImportRequest{Target: t, Columns: columns, Key: key, Rows: rows, Lines: lines}, &a); err != nil {
				cancel(fault.Wrap(err, "import the rows from line "+strconv.Itoa(lines[0]), ""))
				return
			}
			mu.Lock()
			defer mu.Unlock()
			sum.rows += len(rows)
			sum.changed += a.Changed
		})
		if bar != nil {
			if err := bar.Add(counter.n - seen); err != nil {
				bar = nil // the terminal is gone
			}
			seen = counter.n
		}
	}
	wg.Wait()
	if err := context.Cause(ctx); err != nil {
		return sum, err
	}
	return sum, nil
}

// importBytes is from where on no row is added to a transaction, so that with rows
// of up to 768 KiB it stays within a batch's 1 MiB.
const importBytes = 256 << 10

// readRows reads the rows of one transaction, and the line of each.
func readRows(r *csv.Reader) (rows [][]string, lines []int, err error) {
	for size := 0; len(rows) < importRows && size < importBytes; {
		row, err := r.Read()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, nil, err
		}
		line, _ := r.FieldPos(0)
		if err := isText(row, line); err != nil {
			return nil, nil, err
		}
		size += 40
		for _, cell := range row {
			size += len(cell) + 8
		}
		rows, lines = append(rows, row), append(lines, line)
	}
	return rows, lines, nil
}

// isText refuses cells that no field can hold, and what JSON, which carries rows
// to the runtime, would change in silence.
func isText(row []string, line int) error {
	for _, cell := range row {
		if len(cell) > record.MaxValue {
			return fault.New(fault.TooBig, "", "shorten it, or leave its column out", "line %d has a cell of %d bytes, at most %d are stored", line, len(cell), record.MaxValue)
		}
		if !utf8.ValidString(cell) {
			return fault.New(fault.Invalid, "", "save the file as UTF-8", "line %d is not UTF-8 text: %s", line, fault.Quote(cell))
		}
	}
	return nil
}

type countingReader struct {
	r io.Reader
	n int64
}

func (c *countingReader) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += int64(n)
	return n, err
}
