package discover

import (
	"errors"

	"golang.org/x/net/dns/dnsmessage"
)

const (
	maxPacket  = 9000 // RFC 6762 §17
	maxRecords = 128  // looked at in one packet
	maxFound   = 16   // instances taken from one packet
	minSRV     = 7    // bytes of an SRV record: priority, weight, port, the root
)

// An instance is a tag and a port, as somebody said them.
type instance struct {
	tag  tag
	port uint16
}

// question is the packet that asks for the service, a unicast answer preferred
// (RFC 6762 §5.4): that answer repeats the id, which who only listens to
// multicast elsewhere cannot know.
func question(id uint16) ([]byte, error) {
	b := dnsmessage.NewBuilder(make([]byte, 0, 64), dnsmessage.Header{ID: id})
	if err := b.StartQuestions(); err != nil {
		return nil, err
	}
	name, err := dnsmessage.NewName(service)
	if err != nil {
		return nil, err
	}
	err = b.Question(dnsmessage.Question{Name: name, Type: dnsmessage.TypePTR, Class: dnsmessage.ClassINET | 1<<15})
	if err != nil {
		return nil, err
	}
	return b.Finish()
}

// parseAnswer takes the instances out of an answer to question id. Records that
// do not concern us are passed over; what follows a malformed one is lost.
func parseAnswer(packet []byte, id uint16) []instance {
	if len(packet) > maxPacket {
		return nil
	}
	var p dnsmessage.Parser
	h, err := p.Start(packet)
	if err != nil || !h.Response || h.ID != id || h.OpCode != 0 || h.RCode != dnsmessage.RCodeSuccess {
		return nil
	}
	if p.SkipAllQuestions() != nil {
		return nil
	}
	var out []instance
	left := maxRecords
	for _, s := range []section{
		{p.AnswerHeader, p.SkipAnswer}, {p.AuthorityHeader, p.SkipAuthority}, {p.AdditionalHeader, p.SkipAdditional},
	} {
		if !s.walk(&p, &left, &out) {
			break
		}
	}
	return out
}

type section struct {
	header func() (dnsmessage.ResourceHeader, error)
	skip   func() error
}

// walk goes through one section and reports whether the next can be read.
func (s section) walk(p *dnsmessage.Parser, left *int, out *[]instance) bool {
	for {
		h, err := s.header()
		if errors.Is(err, dnsmessage.ErrSectionDone) {
			return true
		}
		if *left--; err != nil || *left < 0 || len(*out) == maxFound {
			return false
		}
		t, ours := parseInstance(h.Name.Data[:h.Name.Length])
		// The parser does not check the length itself.
		if h.Type != dnsmessage.TypeSRV || !ours || h.Length < minSRV {
			if s.skip() != nil {
				return false
			}
			continue
		}
		r, err := p.SRVResource()
		if err != nil {
			return false
		}
		if r.Port != 0 {
			*out = append(*out, instance{tag: t, port: r.Port})
		}
	}
}
