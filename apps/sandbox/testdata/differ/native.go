//go:build !wasip1

package main

import (
	"encoding/binary"
	"fmt"
	"os"
	"strconv"

	"github.com/peers-run/peers-runtime/sdk/peers/peerstest"
)

// main prints what the walks 0 to n-1 of each of m hosts saw, quoted, one a line.
func main() {
	hosts, _ := strconv.Atoi(os.Args[1])
	walks, _ := strconv.Atoi(os.Args[2])
	for h := range hosts {
		host := peerstest.New(app,
			peerstest.Index{Collection: windows[0].ID(), Number: 1, Fields: indexes[1]},
			peerstest.Index{Collection: windows[0].ID(), Number: 2, Fields: indexes[2], Words: true},
			peerstest.Index{Collection: windows[0].ID(), Number: 3, Fields: indexes[3]},
			peerstest.Index{Collection: windows[0].ID(), Number: 4, Fields: indexes[4]},
			peerstest.Index{Collection: windows[0].ID(), Number: 5, Fields: indexes[5]},
			peerstest.Index{Collection: windows[0].ID(), Number: 6, Fields: indexes[6]},
		)
		for i := range walks {
			seed := binary.LittleEndian.AppendUint64(nil, uint64(h*walks+i))
			reply, err := host.Call(7, seed)
			if err != nil {
				fmt.Printf("%q\n", "refused: "+err.Error())
				continue
			}
			fmt.Printf("%q\n", reply)
		}
	}
}
