package main

import (
	"context"
	"errors"
	"time"

	"github.com/peers-run/peers-runtime/net/link/linktest"
)

// direct sends the same bytes through a link and through bare quic-go, in turn.
func (b *bench) direct() (err error) {
	const size = 64 << 20
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
	defer cancel()
	raw, err := linktest.Raw(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, raw.Close()) }()
	ours, err := linktest.Links(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, ours.Close()) }()
	var ratios, rates []float64
	for round := range 2*b.rounds + 1 {
		var took [2]time.Duration
		for i := range took { // each goes first every other time
			side := (round + i) % 2
			if took[side], err = []*linktest.Side{raw, ours}[side].Push(ctx, size); err != nil {
				return err
			}
		}
		if round > 0 { // congestion windows are open then
			ratios = append(ratios, took[0].Seconds()/took[1].Seconds())
			rates = append(rates, size*8/took[1].Seconds()/1e6)
		}
	}
	line("net.direct", median(ratios), "x_raw_quic", ">=0.95")
	line("net.direct.rate", median(rates), "Mbit/s", "-")
	return nil
}

// lan lets devices meet by mDNS on this machine's interfaces.
func (b *bench) lan() error {
	var found, connected []float64
	for range max(b.rounds, 5) {
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		m, err := linktest.Meet(ctx)
		cancel()
		if err != nil {
			return err
		}
		found = append(found, m.Found.Seconds()*1000)
		connected = append(connected, m.Connected.Seconds()*1000)
	}
	line("net.lan", median(found), "ms_found_to_first_byte", "<=50")
	line("net.lan.connected", median(connected), "ms_start_to_connected", "<=1000")
	return nil
}
