// Command peers-pack packs an app's folder into a bundle, signed by the open,
// insecure development publisher:
//
//	peers-pack DIR FILE.peersapp
//
// A folder with a go.mod is built first, as a guest. Publishers of their own sign
// with peers-runtime; this is for the examples and for a developer's own desk.
package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/peers-run/peers-runtime/apps/bundle"
	"github.com/peers-run/peers-runtime/internal/atomicfile"
	"github.com/peers-run/peers-runtime/internal/fault"
	"github.com/peers-run/peers-runtime/runtime/devkit"
	"github.com/peers-run/peers-runtime/sdk/page"
)

func main() { os.Exit(run(os.Args[1:], os.Stdout, os.Stderr)) }

// run runs a command line and returns the exit status.
func run(args []string, out, complain io.Writer) int {
	if len(args) != 2 {
		fmt.Fprintln(complain, "usage: peers-pack DIR FILE.peersapp")
		return 2
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := pack(ctx, args[0], args[1], out); err != nil {
		fmt.Fprintln(complain, "peers-pack:", err)
		if hint := fault.HintOf(err); hint != "" {
			fmt.Fprintln(complain, "hint:", hint)
		}
		return 1
	}
	return 0
}

func pack(ctx context.Context, dir, file string, out io.Writer) error {
	var w bytes.Buffer
	b, err := devkit.Kit{SDK: page.Files, Signer: bundle.InsecureSigner()}.Pack(ctx, &w, dir)
	if err != nil {
		return err
	}
	if err := atomicfile.Write(file, w.Bytes()); err != nil {
		return fault.Wrap(err, "write the bundle", "name a file in a folder that can be written to")
	}
	_, err = fmt.Fprintf(out, "%s: %s %s, %d bytes\n", file, b.Manifest.ID, b.Manifest.Version, w.Len())
	return err
}
