package main

import (
	"bytes"
	"encoding/json"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/peers-run/peers-runtime/runtime/control"
)

// TestSquatterAfterKill kills a runtime, takes its port as another user of the
// machine could, and runs commands that have secrets to tell.
func TestSquatterAfterKill(t *testing.T) {
	home := filepath.Join(t.TempDir(), "home")
	p := startProcess(t, home)
	p.status()
	p.kill()
	b, err := os.ReadFile(filepath.Join(home, control.FileAPI))
	if err != nil {
		t.Fatalf("a killed runtime leaves its file: %v", err)
	}
	var a control.Address
	if err := json.Unmarshal(b, &a); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", strings.TrimSuffix(strings.TrimPrefix(a.URL, "http://"), "/"))
	if err != nil {
		t.Fatal(err)
	}
	told := make(chan string, 100)
	var wg sync.WaitGroup
	wg.Go(func() {
		defer close(told)
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			b := make([]byte, 64<<10)
			n, _ := conn.Read(b)
			conn.Write([]byte("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}"))
			conn.Close()
			told <- string(b[:n])
		}
	})
	words := filepath.Join(t.TempDir(), "words.txt")
	const some = "abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon " +
		"abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon art"
	if err := os.WriteFile(words, []byte(some), 0o600); err != nil {
		t.Fatal(err)
	}
	const message, hint = "another program has its port", `start it with "peers-runtime up"`
	refused(t, 1, message, hint, "--home", home, "recover", "--words", words, "127.0.0.1:1")
	refused(t, 1, message, hint, "--home", home, "status")
	if status, out, said := runCommand(t, nil, "--home", home, "init"); status != 0 {
		t.Errorf("init after a kill: exit %d\n%s%s", status, out, said)
	}
	l.Close()
	var all bytes.Buffer
	n := 0
	for s := range told {
		all.WriteString(s)
		n++
	}
	wg.Wait()
	if n != 3 || strings.Contains(all.String(), a.Token) || strings.Contains(all.String(), "abandon") {
		t.Errorf("the squatter was told, in %d connections, %q", n, all.String())
	}
}
