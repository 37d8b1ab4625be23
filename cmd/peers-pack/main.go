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
	"os"
	"os/signal"

	"github.com/peers-run/peers-runtime/apps/bundle"
	"github.com/peers-run/peers-runtime/internal/atomicfile"
	"github.com/peers-run/peers-runtime/internal/fault"
	"github.com/peers-run/peers-runtime/runtime/devkit"
	"github.com/peers-run/peers-runtime/sdk/page"
)

func main() {
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "usage: peers-pack DIR FILE.peersapp")
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := pack(ctx, os.Args[1], os.Args[2]); err != nil {
		fmt.Fprintln(os.Stderr, "peers-pack:", err)
		if hint := fault.HintOf(err); hint != "" {
			fmt.Fprintln(os.Stderr, "hint:", hint)
		}
		stop()
		os.Exit(1)
	}
}

func pack(ctx context.Context, dir, out string) error {
	var w bytes.Buffer
	b, err := devkit.Kit{SDK: page.Files, Signer: bundle.InsecureSigner()}.Pack(ctx, &w, dir)
	if err != nil {
		return err
	}
	if err := atomicfile.Write(out, w.Bytes()); err != nil {
		return err
	}
	_, err = fmt.Printf("%s: %s %s, %d bytes\n", out, b.Manifest.ID, b.Manifest.Version, w.Len())
	return err
}
