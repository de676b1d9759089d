//go:build unix

package main

import (
	"bufio"
	"cmp"
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/carillon-go/carillon"
	"github.com/carillon-go/carillon/examples/cms"
	"github.com/carillon-go/carillon/examples/cms/cable"
	"github.com/carillon-go/carillon/provider"
	"github.com/carillon-go/carillon/provider/natsbus"
	"github.com/carillon-go/carillon/provider/redisbus"
	"github.com/carillon-go/carillon/provider/tcpbus"
	"github.com/carillon-go/carillon/provider/udpbus"
	"github.com/carillon-go/carillon/site"
	"github.com/carillon-go/carillon/site/sqlsite"
)

// A peer is a bare instance in a process of its own: it raises events at a
// steady rate, and keeps a ledger of what it heard. It is the test program,
// started by startPeer.

const (
	peerConfigEnv = "CARILLON_TEST_PEER"

	peerMissedAfter = time.Second
	peerEvery       = 4 * time.Millisecond // between two raises
)

type peerConfig struct {
	Name     string
	File     string // the SQLite file
	Provider string
	UDPPort  int

	NATS, Redis string        // URLs of what stands by; none if empty
	Also        string        // of that, what is in use from the beginning
	MissedAfter time.Duration // 0: peerMissedAfter
	Every       time.Duration // between two raises; 0: peerEvery
}

// standby returns what a site of peers can be moved to.
func (cfg *peerConfig) standby() map[string]func() (provider.Provider, error) {
	if cfg.NATS == "" {
		return nil
	}
	return map[string]func() (provider.Provider, error){
		"udp":   func() (provider.Provider, error) { return cfg.alone("udp") },
		"tcp":   func() (provider.Provider, error) { return cfg.alone("tcp") },
		"nats":  func() (provider.Provider, error) { return natsbus.New(natsbus.Config{URLs: []string{cfg.NATS}}) },
		"redis": func() (provider.Provider, error) { return redisbus.New(redisbus.Config{URL: cfg.Redis}) },
	}
}

// alone makes a transport that needs no server, tcp or udp, on this machine only.
func (cfg *peerConfig) alone(name string) (provider.Provider, error) {
	if name == "udp" {
		return udpbus.New(udpbus.Config{Port: cfg.UDPPort, Interface: "127.0.0.1"})
	}
	return tcpbus.New(tcpbus.Config{Listen: "127.0.0.1:0"})
}

// A peerLine is what a peer writes, one at a time.
type peerLine struct {
	InStep *peerInStep `json:",omitempty"`
	Missed *peerMissed `json:",omitempty"`
	Report *peerReport `json:",omitempty"`
	Failed string      `json:",omitempty"`
}

type peerInStep struct {
	Stream string
	At     int64 // Unix microseconds; when Open returned
	Open   time.Duration
}

// A peerMissed is a report of OnMissed.
type peerMissed struct {
	Stream             string // of the source; that of zeros when several are summed up
	First, Last, Count uint64
	Exact              bool
	Reason             string
	Reports            uint64
}

type peerReport struct {
	Raised  []int64 // when each was raised, by its ordinal; Unix microseconds
	Errors  []string
	Panics  uint64
	Key     site.KeyID            // signed with
	Refused uint64                // frames, for reasons of keys
	Uses    []string              // transports that are sent on
	Hears   []string              // transports that are subscribed on
	Heard   map[string]*peerHeard // by stream
}

// A peerHeard is what was heard of one stream.
type peerHeard struct {
	Ranges [][2]uint64 // ordinals, both ends included, ascending and disjoint
	Twice  []uint64    // ordinals that came more than once
}

// add enters an ordinal.
func (h *peerHeard) add(n uint64) {
	i, found := slices.BinarySearchFunc(h.Ranges, n, func(r [2]uint64, n uint64) int {
		switch {
		case r[1] < n:
			return -1
		case r[0] > n:
			return 1
		}
		return 0
	})
	switch {
	case found:
		h.Twice = append(h.Twice, n)
	case i > 0 && h.Ranges[i-1][1]+1 == n:
		h.Ranges[i-1][1] = n
		if i < len(h.Ranges) && h.Ranges[i][0] == n+1 {
			h.Ranges[i-1][1] = h.Ranges[i][1]
			h.Ranges = slices.Delete(h.Ranges, i, i+1)
		}
	case i < len(h.Ranges) && h.Ranges[i][0] == n+1:
		h.Ranges[i][0] = n
	default:
		h.Ranges = slices.Insert(h.Ranges, i, [2]uint64{n, n})
	}
}

// runPeer is the process's main function. It obeys the words "go", "quiet", "cut",
// "heal" and "report" on its standard input, and ends with it.
func runPeer() {
	var mu sync.Mutex // guards out and heard
	out := json.NewEncoder(os.Stdout)
	say := func(l peerLine) {
		mu.Lock()
		defer mu.Unlock()
		out.Encode(l) // nobody reads it any more
	}
	fail := func(err error) {
		if err != nil {
			say(peerLine{Failed: err.Error()})
			os.Exit(1)
		}
	}
	var cfg peerConfig
	fail(json.Unmarshal([]byte(os.Getenv(peerConfigEnv)), &cfg))
	pool, err := sql.Open("sqlite", cms.DSN(cfg.File))
	fail(err)
	db, err := sqlsite.New(pool)
	fail(err)
	transport, err := cfg.alone(cfg.Provider)
	fail(err)
	p := cable.New(transport)
	providers := []provider.Provider{p}
	if cfg.Also != "" {
		also, err := cfg.standby()[cfg.Also]()
		fail(err)
		providers = append(providers, also)
	}
	began := time.Now()
	b, err := carillon.Open(context.Background(), carillon.Config{
		Site: "peers", Application: cfg.Name, Database: db, Providers: providers,
		Standby: cfg.standby(), MissedAfter: cmp.Or(cfg.MissedAfter, peerMissedAfter),
		Logger: slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn})),
	})
	fail(err)
	inStep := peerInStep{At: time.Now().UnixMicro(), Open: time.Since(began)}
	for _, m := range b.Members() {
		if m.Self {
			inStep.Stream = m.Stream.String()
		}
	}

	report := peerReport{Heard: map[string]*peerHeard{}}
	tick := carillon.Define[int](carillon.MustParseID("6f1d2c3b-4a59-4687-b1c2-d3e4f5061728"), "tick")
	tick.OnRaised(b, func(_ context.Context, r carillon.Raised[int]) {
		if r.Local {
			return
		}
		mu.Lock()
		defer mu.Unlock()
		h := report.Heard[r.Source.Stream.String()]
		if h == nil {
			h = new(peerHeard)
			report.Heard[r.Source.Stream.String()] = h
		}
		h.add(r.Ordinal)
	})
	tick.OnMissed(b, func(_ context.Context, m carillon.Missed) {
		say(peerLine{Missed: &peerMissed{
			Stream: m.Source.Stream.String(), First: m.First, Last: m.Last, Count: m.Count,
			Exact: m.Exact, Reason: m.Reason.String(), Reports: m.Reports,
		}})
	})
	b.Enable()
	say(peerLine{InStep: &inStep})

	words := make(chan string)
	go func() {
		defer close(words)
		lines := bufio.NewScanner(os.Stdin)
		for lines.Scan() {
			words <- lines.Text()
		}
	}()
	every := time.NewTicker(cmp.Or(cfg.Every, peerEvery))
	defer every.Stop()
	var raise <-chan time.Time
	for {
		select {
		case <-raise:
			at := time.Now().UnixMicro()
			err := tick.Raise(context.Background(), b, carillon.ID{1}, len(report.Raised))
			mu.Lock()
			report.Raised = append(report.Raised, at)
			if err != nil {
				report.Errors = append(report.Errors, err.Error())
			}
			mu.Unlock()
		case w, ok := <-words:
			if !ok {
				b.Close()
				os.Exit(0)
			}
			switch w {
			case "go":
				raise = every.C
			case "quiet":
				raise = nil
			case "cut":
				p.Cut()
			case "heal":
				p.Heal()
			case "report":
				stats := b.Stats()
				report.Uses, report.Hears = nil, nil
				for _, p := range stats.Providers {
					if p.Sending {
						report.Uses = append(report.Uses, p.Name)
					}
					if p.Subscribed {
						report.Hears = append(report.Hears, p.Name)
					}
				}
				report.Panics, report.Key, report.Refused = stats.Panics, b.Status().Key, 0
				for _, r := range []carillon.DropReason{
					carillon.DropUnknownKey, carillon.DropRetiredKey, carillon.DropUnsupportedKey, carillon.DropFloor, carillon.DropBadTag,
				} {
					report.Refused += stats.Drops[r]
				}
				say(peerLine{Report: &report})
			default:
				fail(fmt.Errorf("there is no word %q", w))
			}
		}
	}
}
