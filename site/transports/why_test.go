package transports_test

import (
	"testing"
	"time"

	"github.com/carillon-go/carillon/site"
	"github.com/carillon-go/carillon/site/transports"
)

func TestWhy_SaysWhatKeepsAnInstance(t *testing.T) {
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	udp, nats, both := []string{"udp"}, []string{"nats"}, []string{"nats", "udp"}
	receives := site.Transports{Receive: both, Send: udp, From: udp, To: nats, Changed: 7}
	sends, alone, closes := receives, receives, receives
	sends.Send, alone.Send = both, nats
	closes.Send, closes.Receive = nats, nats
	row := site.Member{Providers: both, Carries: 6, Verifies: 7, Seen: now.Add(-9 * time.Second)}
	for _, tt := range []struct {
		name   string
		of     site.Transports
		change func(m *site.Member)
		want   string
	}{
		{"in step", receives, func(m *site.Member) { m.Carries = 7 }, ""},
		{"in step, and lapsed since", receives, func(m *site.Member) { m.Carries, m.Lapsed = 8, true }, ""},
		{"nothing was ever moved", site.Transports{}, func(m *site.Member) { m.Carries, m.Providers = 0, nil }, ""},
		{"dead", receives, func(m *site.Member) { m.Lapsed = true }, "has not answered since 11:59:51 UTC, 9s ago: it was killed, or does not reach the database"},
		{"old", receives, func(m *site.Member) { m.Providers = nil }, "runs a program that is too old to be moved: update it"},
		{"without the transport", receives, func(m *site.Member) { m.Providers = udp }, "is not configured for nats: have it stand by there, and restart it"},
		{"dead, and without the transport", receives, func(m *site.Member) { m.Providers, m.Lapsed = udp, true },
			"has not answered since 11:59:51 UTC, 9s ago: it was killed, or does not reach the database; is not configured for nats: have it stand by there, and restart it"},
		{"behind", receives, func(m *site.Member) { m.Verifies = 6 }, "has not read the last change yet; it last wrote 9s ago"},
		{"its clock is no matter", receives, func(m *site.Member) { m.Verifies, m.Seen = 6, now.Add(time.Second) }, "has not read the last change yet; it last wrote 0s ago"},
		{"receives not", receives, func(*site.Member) {}, "is yet to receive on nats: its log and status say what it waits for"},
		{"sends not on both", sends, func(*site.Member) {}, "is yet to send on nats and udp, and hear all others on nats: its log and status say what it waits for"},
		{"sends not on the new one alone", alone, func(*site.Member) {}, "is yet to send on nats alone: its log and status say what it waits for"},
		{"has not closed", closes, func(*site.Member) {}, "is yet to close udp: its log and status say what it waits for"},
		{"without what is not in use any more", closes, func(m *site.Member) { m.Providers = nats }, "is yet to close udp: its log and status say what it waits for"},
	} {
		m := row
		tt.change(&m)
		if got := transports.Why(transports.View{Site: site.Site{Transports: tt.of}, Now: now}, m); got != tt.want {
			t.Errorf("%s: %q\nwant %q", tt.name, got, tt.want)
		}
	}
}
