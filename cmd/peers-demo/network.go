package main

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
)

// A network is two namespaces joined by one veth, without a default route: a LAN
// without the internet. A nil network is the machine's own.
type network struct {
	names [2]string
}

func newNetwork() (*network, error) {
	n := &network{}
	for i := range n.names {
		n.names[i] = fmt.Sprintf("peers-demo-%d-%d", os.Getpid(), i)
	}
	a, b := n.names[0], n.names[1]
	for _, line := range []string{
		"netns add " + a,
		"netns add " + b,
		"-n " + a + " link add lan0 type veth peer name lan0 netns " + b,
		"-n " + a + " addr add 10.77.0.1/24 dev lan0",
		"-n " + b + " addr add 10.77.0.2/24 dev lan0",
		"-n " + a + " link set lan0 up",
		"-n " + b + " link set lan0 up",
		"-n " + a + " link set lo up",
		"-n " + b + " link set lo up",
	} {
		if out, err := exec.Command("ip", strings.Fields(line)...).CombinedOutput(); err != nil {
			n.close()
			return nil, fmt.Errorf("ip %s: %w: %s (it takes root and iproute2)", line, err, strings.TrimSpace(string(out)))
		}
	}
	return n, nil
}

// in is a command line as it runs in namespace i.
func (n *network) in(i int, line []string) []string {
	if n == nil {
		return line
	}
	return append([]string{"ip", "netns", "exec", n.names[i]}, line...)
}

func (n *network) close() {
	if n == nil {
		return
	}
	for _, name := range n.names {
		exec.Command("ip", "netns", "del", name).Run() // it may not be there any more
	}
}
