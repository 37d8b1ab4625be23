package discover

import (
	"bytes"
	"encoding/hex"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/miekg/dns"
	"github.com/peers-run/peers-runtime/internal/golden"
	"github.com/peers-run/peers-runtime/keys"
	"github.com/peers-run/peers-runtime/net/netmon"
)

var (
	testID = keys.DeviceID(bytes.Repeat([]byte{7}, 32))
	noon   = time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)
)

// answer is what the library's server sends to question id.
func answer(t testing.TB, z *zone, id uint16) []byte {
	t.Helper()
	rrs := z.Records(dns.Question{Name: service, Qtype: dns.TypePTR, Qclass: dns.ClassINET})
	m := &dns.Msg{MsgHdr: dns.MsgHdr{Id: id, Response: true, Authoritative: true}, Compress: true, Answer: rrs}
	b, err := m.Pack()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func at(when time.Time) func() time.Time { return func() time.Time { return when } }

func TestGoldens(t *testing.T) {
	x := tagOf(testID, dayOf(noon))
	golden.Hex(t, "tag", x[:])
	q, err := question(0x1234)
	if err != nil {
		t.Fatal(err)
	}
	golden.Hex(t, "question", q)
	b := answer(t, newZone(testID, 4242, at(noon)), 0x1234)
	golden.Hex(t, "answer", b)
	if d := cmp.Diff([]instance{{x, 4242}}, parseAnswer(b, 0x1234), cmp.AllowUnexported(instance{})); d != "" {
		t.Errorf("the answer reads back differently:\n%s", d)
	}
	if parseAnswer(b, 0x1235) != nil {
		t.Error("an answer to another question was taken")
	}
	if parseAnswer(q, 0x1234) != nil {
		t.Error("a question was taken for an answer")
	}
}

// TestAnswerSaysNothingElse: no address, no host name, no id.
func TestAnswerSaysNothingElse(t *testing.T) {
	host, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	z := newZone(testID, 4242, at(noon))
	for _, name := range []string{service, tagOf(testID, dayOf(noon)).instance(), tagOf(testID, dayOf(noon)).host(), "_services._dns-sd._udp.local."} {
		for _, kind := range []uint16{dns.TypePTR, dns.TypeSRV, dns.TypeTXT, dns.TypeA, dns.TypeAAAA, dns.TypeANY} {
			for _, rr := range z.Records(dns.Question{Name: name, Qtype: kind}) {
				switch rr := rr.(type) {
				case *dns.PTR, *dns.SRV:
				case *dns.TXT:
					if len(strings.Join(rr.Txt, "")) > 0 {
						t.Errorf("%s %d: TXT says %q", name, kind, rr.Txt)
					}
				default:
					t.Errorf("%s %d: the zone gives %v", name, kind, rr)
				}
				if s := strings.ToLower(rr.String()); strings.Contains(s, strings.ToLower(host)) || strings.Contains(s, hex.EncodeToString(testID[:4])) {
					t.Errorf("the zone tells %s", s)
				}
			}
		}
	}
}

func TestTagRotates(t *testing.T) {
	var mu sync.Mutex
	now := time.Date(2026, 11, 1, 23, 59, 59, 0, time.UTC)
	clock := func() time.Time { mu.Lock(); defer mu.Unlock(); return now }
	z := newZone(testID, 4242, clock)
	tb := newTable(keys.DeviceID{1}, func() []keys.DeviceID { return []keys.DeviceID{testID, {1}} }, clock)
	ptr := func() string {
		return z.Records(dns.Question{Name: strings.ToUpper(service), Qtype: dns.TypePTR})[0].(*dns.PTR).Ptr
	}
	before := ptr()
	mu.Lock()
	now = now.Add(2 * time.Second)
	mu.Unlock()
	after := ptr()
	if before == after {
		t.Error("the tag is the same after midnight")
	}
	for _, p := range []string{before, after, strings.ToUpper(after)} {
		x, ok := parseInstance([]byte(p))
		if id, known := tb.lookup(x); !ok || !known || id != testID {
			t.Errorf("%s is not recognised", p)
		}
	}
	for _, day := range []int{-2, 2} {
		if _, known := tb.lookup(tagOf(testID, dayOf(now.AddDate(0, 0, day)))); known {
			t.Errorf("a tag %d days off is recognised", day)
		}
	}
	if _, known := tb.lookup(tagOf(keys.DeviceID{1}, dayOf(now))); known {
		t.Error("the device finds itself")
	}
	// The clock jumps by a year: the table must follow at once.
	mu.Lock()
	now = now.AddDate(1, 0, 0)
	mu.Unlock()
	if _, known := tb.lookup(tagOf(testID, dayOf(now))); !known {
		t.Error("after a clock jump today's tag is not recognised")
	}
}

func TestTableFollowsKnown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var known []keys.DeviceID
		tb := newTable(keys.DeviceID{1}, func() []keys.DeviceID { return known }, at(noon))
		x := tagOf(testID, dayOf(noon))
		if _, ok := tb.lookup(x); ok {
			t.Fatal("an unknown device was recognised")
		}
		known = []keys.DeviceID{testID}
		time.Sleep(tableAge + time.Millisecond)
		if _, ok := tb.lookup(x); !ok {
			t.Fatal("a device that became known is not recognised after a second")
		}
	})
}

// TestQuestionBomb: one packet with a thousand questions must not be answered
// with thousands of records, and a moment later honest questions are answered.
func TestQuestionBomb(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		z := newZone(testID, 4242, at(noon))
		records := 0
		for range 1000 {
			records += len(z.Records(dns.Question{Name: service, Qtype: dns.TypeANY}))
		}
		if records > 3*answerBurst+3 {
			t.Errorf("%d records for a thousand questions", records)
		}
		if z.Records(dns.Question{Name: "_other._udp.local.", Qtype: dns.TypeANY}) != nil {
			t.Error("the zone speaks for others")
		}
		time.Sleep(time.Second)
		if z.Records(dns.Question{Name: service, Qtype: dns.TypePTR}) == nil {
			t.Error("a second after the flood an honest question goes unanswered")
		}
	})
}

// hostile builds answers that somebody means ill with.
func hostile(t testing.TB, id uint16, known tag) map[string][]byte {
	pack := func(m *dns.Msg) []byte {
		m.Id, m.Response, m.Compress = id, true, true
		b, err := m.Pack()
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	var many, forged dns.Msg
	for i := range 900 {
		many.Answer = append(many.Answer, &dns.TXT{Hdr: header("x.", dns.TypeTXT), Txt: []string{""}})
		if i < 120 {
			var x tag
			x[0], x[1] = byte(i), 1
			forged.Answer = append(forged.Answer, &dns.SRV{Hdr: header(x.instance(), dns.TypeSRV), Port: uint16(i + 1), Target: "x."})
		}
	}
	var replay dns.Msg
	for i := range 100 {
		replay.Answer = append(replay.Answer, &dns.SRV{Hdr: header(known.instance(), dns.TypeSRV), Port: uint16(i + 1), Target: "x."})
	}
	head := []byte{byte(id >> 8), byte(id), 0x84, 0, 0, 0, 0xff, 0xff, 0, 0, 0, 0}
	loop := append(bytes.Clone(head), 0xc0, 12, 0, 33, 0, 1, 0, 0, 0, 0, 0, 0)
	long := append(bytes.Clone(head), bytes.Repeat(append([]byte{63}, bytes.Repeat([]byte{'a'}, 63)...), 100)...)
	return map[string][]byte{
		"empty":           {},
		"header only":     head,
		"pointer loop":    loop,
		"name bomb":       long,
		"many records":    pack(&many),
		"forged tags":     pack(&forged),
		"replayed tag":    pack(&replay),
		"too big":         append(answer(t, newZone(testID, 1, at(noon)), id), make([]byte, maxPacket)...),
		"garbage":         bytes.Repeat([]byte{0xff}, 500),
		"truncated":       answer(t, newZone(testID, 4242, at(noon)), id)[:40],
		"not a response":  append([]byte{byte(id >> 8), byte(id), 0, 0}, head[4:]...),
		"another opcode":  append([]byte{byte(id >> 8), byte(id), 0xac, 0}, head[4:]...),
		"error as answer": append([]byte{byte(id >> 8), byte(id), 0x84, 3}, head[4:]...),
	}
}

func TestParseAnswerIsBounded(t *testing.T) {
	for name, b := range hostile(t, 9, tagOf(testID, dayOf(noon))) {
		if n := len(parseAnswer(b, 9)); n > maxFound {
			t.Errorf("%s: %d instances taken", name, n)
		}
	}
	if n := len(parseAnswer(hostile(t, 9, tag{})["forged tags"], 9)); n == 0 {
		t.Error("the forged tags do not parse: the case tests nothing")
	}
}

// victim is a station that reads from a real socket and notes what it reports.
type victim struct {
	*station
	at   *net.UDPAddr
	news chan netip.AddrPort

	mu    sync.Mutex
	found map[netip.AddrPort]int
}

func newVictim(t *testing.T) *victim {
	t.Helper()
	c, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	v := &victim{at: c.LocalAddr().(*net.UDPAddr), news: make(chan netip.AddrPort, 10000), found: map[netip.AddrPort]int{}}
	d := &Discovery{cfg: Config{Found: func(_ keys.DeviceID, a []netip.AddrPort) {
		v.mu.Lock()
		v.found[a[0]]++
		v.mu.Unlock()
		v.news <- a[0]
	}}, table: newTable(keys.DeviceID{1}, func() []keys.DeviceID { return []keys.DeviceID{testID} }, at(noon))}
	v.station = &station{d: d, id: 9, v4: c, heard: map[finding]time.Time{}, fresh: map[keys.DeviceID]int{},
		budget: packetBurst, at: time.Now(), swept: time.Now(),
		ifi: netmon.Interface{Addresses: []netip.Prefix{netip.MustParsePrefix("127.0.0.1/32")}}}
	v.wg.Go(func() { v.read(c) })
	t.Cleanup(v.close)
	return v
}

// sender is a socket on a loopback address that sends to the victim.
func (v *victim) sender(t *testing.T, ip net.IP) *net.UDPConn {
	t.Helper()
	c, err := net.DialUDP("udp4", &net.UDPAddr{IP: ip}, v.at)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// TestHostileLAN sends a station thousands of hostile answers.
func TestHostileLAN(t *testing.T) {
	v := newVictim(t)
	here := v.sender(t, net.IPv4(127, 0, 0, 1))
	from := func(port uint16) []byte { return answer(t, newZone(testID, port, at(noon)), 9) }
	_, _ = here.Write(from(4242))
	if got := <-v.news; got.Port() != 4242 {
		t.Fatalf("found %v", got)
	}
	// A stranger from elsewhere, with a tag it overheard.
	_, _ = v.sender(t, net.IPv4(127, 0, 0, 2)).Write(from(4242))
	for i := range 100 {
		_, _ = here.Write(from(uint16(5000 + i)))
	}
	bad := hostile(t, 9, tagOf(testID, dayOf(noon)))
	for range 300 {
		for _, b := range bad {
			_, _ = here.Write(b)
		}
	}
	// When packets are affordable again the flood is over. A new port is found
	// as soon as the allowance for its device is there again.
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for over := false; !over; {
		<-tick.C
		v.station.mu.Lock()
		over = v.budget+packetRate*time.Since(v.station.at).Seconds() > 30
		v.station.mu.Unlock()
	}
	v.station.mu.Lock()
	clear(v.fresh)
	v.station.mu.Unlock()
	for end, got := time.After(10*time.Second), uint16(0); got != 4343; {
		select {
		case a := <-v.news:
			got = a.Port()
		case <-tick.C:
			_, _ = here.Write(from(4343))
		case <-end:
			t.Fatal("after the flood nothing is found any more")
		}
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if len(v.found) > maxFresh+2 {
		t.Errorf("strangers made it report %d addresses", len(v.found))
	}
	for a, n := range v.found {
		if a.Addr() != netip.MustParseAddr("127.0.0.1") {
			t.Errorf("an answer from off the link was taken: %v", a)
		}
		if n > 4 {
			t.Errorf("%v was reported %d times within seconds", a, n)
		}
	}
}

func FuzzParseAnswer(f *testing.F) {
	f.Add(answer(f, newZone(testID, 4242, at(noon)), 9))
	for _, b := range hostile(f, 9, tagOf(testID, dayOf(noon))) {
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		found := parseAnswer(b, 9)
		if len(found) > maxFound {
			t.Fatalf("%d instances from one packet", len(found))
		}
		for _, in := range found {
			if in.port == 0 {
				t.Fatal("port 0")
			}
			// The other parser must see the record too.
			var m dns.Msg
			if err := m.Unpack(b); err == nil && !mentions(&m, in) {
				t.Fatalf("%v:%d is in no SRV record", in.tag, in.port)
			}
		}
	})
}

func mentions(m *dns.Msg, in instance) bool {
	for _, rrs := range [][]dns.RR{m.Answer, m.Ns, m.Extra} {
		for _, rr := range rrs {
			if srv, ok := rr.(*dns.SRV); ok && srv.Port == in.port && strings.EqualFold(srv.Hdr.Name, in.tag.instance()) {
				return true
			}
		}
	}
	return false
}

func FuzzParseInstance(f *testing.F) {
	f.Add([]byte(tagOf(testID, 1).instance()))
	f.Fuzz(func(t *testing.T, b []byte) {
		if x, ok := parseInstance(b); ok && !strings.EqualFold(x.instance(), string(b)) {
			t.Fatalf("%q reads as %s", b, x.instance())
		}
	})
}
