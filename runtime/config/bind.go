package config

import (
	"fmt"
	"net/netip"
	"strings"
)

// ParseBind reads the setting bind: at most one address of each family.
func ParseBind(s string) ([]netip.Addr, error) {
	if s == "" {
		return nil, nil
	}
	var out []netip.Addr
	for part := range strings.SplitSeq(s, ",") {
		a, err := netip.ParseAddr(strings.TrimSpace(part))
		if err != nil {
			return nil, err
		}
		for _, b := range out {
			if a.Is4() == b.Is4() {
				return nil, fmt.Errorf("two addresses of one family: %s and %s", b, a)
			}
		}
		out = append(out, a)
	}
	return out, nil
}
