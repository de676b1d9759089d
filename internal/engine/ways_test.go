package engine

import (
	"testing"
	"time"

	"github.com/carillon-go/carillon/internal/wire"
)

// beats ticks m until end and returns when it said heartbeats.
func beats(t *testing.T, m *Machine, now, end time.Time, fx *Effects) (at []time.Time) {
	t.Helper()
	for {
		next := m.Next()
		if next.IsZero() || next.After(end) {
			return at
		}
		if next.After(now) {
			now = next
		}
		fx.Reset()
		m.Tick(now, fx)
		for _, c := range fx.Control {
			if h, err := wire.ParseHeader(c.Frame); err == nil && h.Type == wire.TypeHeartbeat {
				at = append(at, now)
			}
		}
	}
}

// A site that has moved to a transport where messages cost money pays for no idle chatter, and one that has left
// it chatters again.
func TestSetWays_IdleHeartbeatsFollowTheTransportsInUse(t *testing.T) {
	m, _, now, fx := pacedBy(t, 1, func(cfg *Config) { cfg.IdleHeartbeat = 0 })
	hour := now.Add(time.Hour)
	if n := len(beats(t, m, now, hour, fx)); n < 1000 {
		t.Fatalf("%d heartbeats in an hour of idling, want one in a second or so", n)
	}
	m.SetWays(hour, Ways{ReachesOne: true, IdleHeartbeat: -1})
	now, hour = hour, hour.Add(time.Hour)
	at := beats(t, m, now, hour, fx)
	if len(at) == 0 || len(at) > 10 || at[len(at)-1].Sub(now) > 5*time.Second {
		t.Errorf("%d heartbeats, at %v; want a few at once, so that all know where this one stands, and then none", len(at), at)
	}
	m.SetWays(hour, Ways{ReachesOne: true, IdleHeartbeat: time.Minute})
	now, hour = hour, hour.Add(time.Hour)
	if n := len(beats(t, m, now, hour, fx)); n < 55 || n > 75 {
		t.Errorf("%d heartbeats in an hour, want one in a minute", n)
	}
}

func TestSpeak_SaysAHeartbeatWhereIdleInstancesSayNone(t *testing.T) {
	m, _, now, fx := pacedBy(t, 1, func(cfg *Config) { cfg.IdleHeartbeat = -1 })
	beats(t, m, now, now.Add(time.Minute), fx)
	now = now.Add(time.Minute)
	if at := beats(t, m, now, now.Add(time.Hour), fx); len(at) != 0 {
		t.Fatalf("heartbeats at %v, want none", at)
	}
	now = now.Add(time.Hour)
	m.Speak(now)
	if at := beats(t, m, now, now.Add(time.Hour), fx); len(at) == 0 || at[0].Sub(now) > 100*time.Millisecond {
		t.Errorf("heartbeats at %v, want one soon after %v", at, now)
	}
}

// Where messages cost money, few events are acknowledged late, and many as anywhere else.
func TestACK_WhereMessagesCostMoneyItComesLateForFewEvents(t *testing.T) {
	for _, tt := range []struct {
		name   string
		idle   time.Duration
		frames int
		want   time.Duration // after the last of them
	}{
		{"one, for free", 0, 1, ackEvery},
		{"one", -1, 1, ackDear},
		{"one, once a minute", time.Minute, 1, ackDear},
		{"a few", -1, ackDearFrames, ackDear},
		{"many", -1, ackDearFrames + 1, ackEvery},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m, others, now, fx := pacedBy(t, 2, func(cfg *Config) { cfg.Window, cfg.IdleHeartbeat = 0, tt.idle })
			for n := range uint64(tt.frames) {
				h := wire.Header{Type: wire.TypeEvents, Site: testSite, Stream: others[0], Number: n + 1, Ordinal: n, Count: 1}
				if v := m.Receive(now, h, make([]byte, 1000), wire.AppendRecord(nil, &wire.Event{}), fx); v != Accepted {
					t.Fatalf("frame %d: %v", h.Number, v)
				}
			}
			if got := m.ackAt.Sub(now); got != tt.want {
				t.Errorf("it comes %v after the last of %d frames, want %v", got, tt.frames, tt.want)
			}
		})
	}
}
