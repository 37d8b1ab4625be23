package discover

import (
	"strings"
	"sync"
	"time"

	"github.com/miekg/dns"
	"github.com/peers-run/peers-runtime/keys"
)

// zone answers questions about this device, the same on every interface.
type zone struct {
	// Set by newZone, never changed.
	id    keys.DeviceID
	port  uint16
	clock func() time.Time

	// mu guards the tokens. An answer is larger than its question, and one
	// packet may hold hundreds of questions: without a limit we would amplify.
	mu     sync.Mutex
	tokens float64
	at     time.Time
}

const (
	answerRate  = 50 // answers per second, all interfaces
	answerBurst = 100
	ttl         = 120 // seconds (RFC 6762 §10)
)

func newZone(id keys.DeviceID, port uint16, clock func() time.Time) *zone {
	return &zone{id: id, port: port, clock: clock, tokens: answerBurst, at: time.Now()}
}

func (z *zone) allow() bool {
	z.mu.Lock()
	defer z.mu.Unlock()
	now := time.Now()
	z.tokens = min(answerBurst, z.tokens+answerRate*now.Sub(z.at).Seconds())
	z.at = now
	if z.tokens < 1 {
		return false
	}
	z.tokens--
	return true
}

// Records answers one question: PTR or ANY for the service, SRV, TXT or ANY for
// today's instance. It implements mdns.Zone.
func (z *zone) Records(q dns.Question) []dns.RR {
	t := tagOf(z.id, dayOf(z.clock()))
	all := q.Qtype == dns.TypeANY
	var rrs []dns.RR
	switch {
	case strings.EqualFold(q.Name, service) && (all || q.Qtype == dns.TypePTR):
		rrs = []dns.RR{z.ptr(t), z.srv(t), z.txt(t)}
	case strings.EqualFold(q.Name, t.instance()) && (all || q.Qtype == dns.TypeSRV):
		rrs = []dns.RR{z.srv(t), z.txt(t)}
	case strings.EqualFold(q.Name, t.instance()) && q.Qtype == dns.TypeTXT:
		rrs = []dns.RR{z.txt(t)}
	}
	if len(rrs) == 0 || !z.allow() {
		return nil
	}
	return rrs
}

func header(name string, kind uint16) dns.RR_Header {
	return dns.RR_Header{Name: name, Rrtype: kind, Class: dns.ClassINET, Ttl: ttl}
}

func (z *zone) ptr(t tag) dns.RR {
	return &dns.PTR{Hdr: header(service, dns.TypePTR), Ptr: t.instance()}
}

func (z *zone) srv(t tag) dns.RR {
	return &dns.SRV{Hdr: header(t.instance(), dns.TypeSRV), Port: z.port, Target: t.host()}
}

// txt is empty: DNS-SD wants one (RFC 6763 §6.1), we have nothing to say.
func (z *zone) txt(t tag) dns.RR {
	return &dns.TXT{Hdr: header(t.instance(), dns.TypeTXT), Txt: []string{""}}
}
