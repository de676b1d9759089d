package carillon_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/carillon-go/carillon"
	"github.com/carillon-go/carillon/carillontest"
	"github.com/carillon-go/carillon/internal/wire"
	"github.com/carillon-go/carillon/provider"
	"github.com/carillon-go/carillon/provider/membus"
)

// A meter counts what instances give to their providers, as a service that charges for it does.
type meter struct {
	mu     sync.Mutex // guards the fields below
	calls  map[string]int
	frames map[string]map[wire.Type]int
	silent map[string]bool // what is sent through these arrives nowhere, and nobody is told
}

func newMeter() *meter {
	return &meter{calls: map[string]int{}, frames: map[string]map[wire.Type]int{}, silent: map[string]bool{}}
}

func (m *meter) reset() {
	m.mu.Lock()
	defer m.mu.Unlock()
	clear(m.calls)
	clear(m.frames)
}

// silence makes a provider lose everything from now on, at all instances, or not any more.
func (m *meter) silence(provider string, on bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.silent[provider] = on
}

// sent returns how many frames all instances sent through a provider since reset, and in how many messages.
func (m *meter) sent(provider string) (frames, calls int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, n := range m.frames[provider] {
		frames += n
	}
	return frames, m.calls[provider]
}

// of returns how many frames of one type were sent.
func (m *meter) of(provider string, t wire.Type) int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.frames[provider][t]
}

// String says what was sent, by provider and type of frame.
func (m *meter) String() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	var lines []string
	for provider, types := range m.frames {
		lines = append(lines, fmt.Sprintf("%s: %v", provider, types))
	}
	slices.Sort(lines)
	return strings.Join(lines, "; ")
}

func (m *meter) count(provider string, frames [][]byte) (lost bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.calls[provider]++
	if m.frames[provider] == nil {
		m.frames[provider] = map[wire.Type]int{}
	}
	for _, f := range frames {
		h, err := wire.ParseHeader(f)
		if err != nil {
			panic(err)
		}
		m.frames[provider][h.Type]++
	}
	return m.silent[provider]
}

// metered is a Provider of some name and price, which a meter watches. Like most services it reaches all or nobody.
type metered struct {
	provider.Provider
	meter *meter
	name  string
	idle  time.Duration
}

func (p *metered) Name() string { return p.name }

func (p *metered) Capabilities() provider.Capabilities {
	caps := p.Provider.Capabilities()
	caps.IdleHeartbeat = p.idle
	return caps
}

func (p *metered) SetMembers(m provider.Members) { p.Provider.(provider.MemberWatcher).SetMembers(m) }

func (p *metered) Send(ctx context.Context, frames [][]byte) error {
	if p.meter.count(p.name, frames) {
		return nil
	}
	return p.Provider.Send(ctx, frames)
}

// price is a provider's name and what it says about idle heartbeats.
type price struct {
	name string
	idle time.Duration
}

// A quiet site is a cluster whose traffic is metered. All of its instances subscribe to one event.
type quietSite struct {
	*carillontest.Cluster
	*meter
	d     *carillon.Definition[note]
	heard []*carillontest.Recorder[note]
}

// newQuietSite opens a site and waits until it is quiet. It runs inside a bubble.
func newQuietSite(t *testing.T, n int, prices ...price) *quietSite {
	q := &quietSite{meter: newMeter(), d: define(), heard: make([]*carillontest.Recorder[note], n)}
	var c *carillontest.Cluster
	buses := map[string]*membus.Bus{}
	for _, p := range prices {
		buses[p.name] = membus.New()
	}
	c = carillontest.NewCluster(t, 0, carillontest.Configure(func(i int, cfg *carillon.Config) {
		cfg.Providers = nil
		for _, p := range prices {
			cfg.Providers = append(cfg.Providers, &metered{buses[p.name].Provider(), q.meter, p.name, p.idle})
		}
	}), carillontest.Wire(func(i int, b *carillon.Broker) { q.heard[i] = carillontest.Record(t, b, q.d) }))
	for range n {
		c.Add()
	}
	q.Cluster = c
	for i := range n { // so that each has something to acknowledge, and something kept
		raise(t, q.d, c.Broker(i), 100+i, 100+i)
	}
	for i := range n {
		q.heard[i].WaitRaised(n)
		q.heard[i].Reset()
	}
	time.Sleep(2 * time.Minute)
	q.reset()
	return q
}

func TestIdle_AsMuchIsSentAsProvidersAllow(t *testing.T) {
	const n = 10
	for _, tt := range []struct {
		name string
		idle time.Duration
		want int           // frames of one instance
		in   time.Duration // that long
	}{
		{"as the protocol has it", 0, 600, 10 * time.Minute},
		{"once a minute", time.Minute, 60, time.Hour},
		{"never", -1, 0, time.Hour},
	} {
		t.Run(tt.name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				q := newQuietSite(t, n, price{"paid", tt.idle})
				time.Sleep(tt.in)
				frames, calls := q.sent("paid")
				if want := n * tt.want; frames < want-n || frames > want+n {
					t.Errorf("an idle site of %d sent %d frames in %v, want %d: %v", n, frames, tt.in, want, q.meter)
				}
				if kept := q.Broker(1).Stats().Repair.CacheBytes; kept > 0 {
					t.Errorf("%v after the last event %d bytes are still kept to repair it; want a minute or two", tt.in, kept)
				}
				t.Logf("%d idle instances, %v: %d frames in %d messages: %v", n, tt.in, frames, calls, q.meter)

				q.reset()
				raise(t, q.d, q.Broker(0), 1, 1)
				time.Sleep(time.Minute)
				frames, calls = q.sent("paid")
				t.Logf("an event, and the minute after it: %d frames in %d messages: %v", frames, calls, q.meter)
				beats, acks := q.of("paid", wire.TypeHeartbeat), q.of("paid", wire.TypeACK)
				if tt.idle < 0 && (beats != 1 || acks > n-1) {
					t.Errorf("%d heartbeats and %d acknowledgements followed the event, want 1, which tells of it if it was lost, and one of each other instance at most", beats, acks)
				}
				if tt.idle == 0 && beats < 5 {
					t.Errorf("%d heartbeats followed the event, want 5 within a second, and one every second", beats)
				}
				for i := range n {
					if got := numbers(q.heard[i].WaitRaised(1)); !slices.Equal(got, span(1, 1)) {
						t.Errorf("instance %d heard %v", i, got)
					}
				}
				time.Sleep(10 * time.Minute)
				q.reset()
				q.Restart(n - 1)
				time.Sleep(50 * time.Second)
				frames, calls = q.sent("paid")
				t.Logf("one is killed and starts again, and the minute after it: %d frames in %d messages: %v", frames, calls, q.meter)
			})
		})
	}
}

func TestIdle_RowsFindTheLastEventBeforeSilence(t *testing.T) { // G1 without heartbeats
	for _, tt := range []struct {
		name string
		idle time.Duration
	}{{"once a minute", time.Minute}, {"never", -1}} {
		t.Run(tt.name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				q := newQuietSite(t, 3, price{"paid", tt.idle})
				time.Sleep(10 * time.Minute)
				q.silence("paid", true)
				raise(t, q.d, q.Broker(0), 1, 1)
				time.Sleep(3 * time.Second) // all that is said of it right after it
				q.silence("paid", false)
				for i := 1; i < 3; i++ {
					if n := len(q.heard[i].Raised()); n > 0 {
						t.Fatalf("instance %d heard %d events; the test lets none through", i, n)
					}
				}
				// The row is renewed after a third of the lease, at the next poll, and read by the others at theirs, up to 1.25 s later each.
				time.Sleep(10 * time.Second)
				for i := 1; i < 3; i++ {
					if got := numbers(q.heard[i].Raised()); !slices.Equal(got, span(1, 1)) || q.heard[i].MissedCount() > 0 {
						t.Errorf("13 s after it was raised, instance %d heard %v, and missed %d", i, got, q.heard[i].MissedCount())
					}
				}
				time.Sleep(10 * time.Second)
				q.reset()
				time.Sleep(20 * time.Second)
				if frames, _ := q.sent("paid"); frames > 3 {
					t.Errorf("half a minute after the repair %d frames were sent: %v", frames, q.meter)
				}
			})
		})
	}
}

// Send succeeds, and nothing arrives, for ever.
func TestIdle_ASilentProviderIsFound(t *testing.T) {
	bubble(t, func(t *testing.T) {
		q := newQuietSite(t, 3, price{"paid", -1})
		q.silence("paid", true)
		raise(t, q.d, q.Broker(0), 1, 5)
		time.Sleep(25 * time.Second) // the row's interval, and MissedAfter
		for i := 1; i < 3; i++ {
			if n := q.heard[i].MissedCount(); n != 5 {
				t.Errorf("instance %d missed %d of 5", i, n)
			}
		}
		time.Sleep(time.Minute)
		q.reset()
		time.Sleep(time.Hour)
		if frames, _ := q.sent("paid"); frames > 0 {
			t.Errorf("an hour later, nobody having raised anything, %d frames were sent: %v", frames, q.meter)
		}
		q.silence("paid", false)
		raise(t, q.d, q.Broker(0), 6, 6)
		if got := numbers(q.heard[1].WaitRaised(1)); !slices.Equal(got, span(6, 6)) {
			t.Errorf("heard %v", got)
		}
	})
}

func TestIdle_NobodySpeaksOfWhoIsGone(t *testing.T) {
	bubble(t, func(t *testing.T) {
		q := newQuietSite(t, 5, price{"paid", -1})
		q.Crash(4)
		time.Sleep(time.Hour)
		if frames, _ := q.sent("paid"); frames > 0 {
			t.Errorf("after one was killed, the others sent %d frames in an hour: %v", frames, q.meter)
		}
		if n := len(q.Broker(0).Members()); n != 4 {
			t.Errorf("%d members are left, want 4", n)
		}
	})
}

func TestIdle_OfTwoProvidersTheCostlyOneIsSpared(t *testing.T) {
	const n = 4
	for _, tt := range []struct {
		name     string
		idle     time.Duration // of the costly one
		want     int           // frames of one instance in 20 minutes
		freeLost bool          // the other one is silent
	}{
		{"never", -1, 0, false},
		{"once a minute", time.Minute, 20, false},
		{"never, and the other one loses everything", -1, 0, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				q := newQuietSite(t, n, price{"free", 0}, price{"paid", tt.idle})
				q.silence("free", tt.freeLost)
				time.Sleep(time.Minute) // for what is said of the silence at first
				if frames, _ := q.sent("paid"); tt.freeLost && frames == 0 {
					t.Error("nobody told through the costly one what is known of those that fell silent")
				}
				q.reset()
				time.Sleep(20 * time.Minute)
				if frames, _ := q.sent("free"); frames < n*1100 {
					t.Errorf("%d frames through the free one in 20 minutes, want %d", frames, n*1200)
				}
				if frames, _ := q.sent("paid"); frames < n*tt.want-n || frames > n*tt.want+n {
					t.Errorf("%d frames through the costly one in 20 minutes, want %d: %v", frames, n*tt.want, q.meter)
				}
				t.Log(q.meter)
				raise(t, q.d, q.Broker(1), 1, 3)
				for i := range n {
					if got := numbers(q.heard[i].WaitRaised(3)); !slices.Equal(got, span(1, 3)) {
						t.Errorf("instance %d heard %v", i, got)
					}
				}
				time.Sleep(time.Minute)
				for i := range n {
					if n := q.heard[i].MissedCount(); n > 0 {
						t.Errorf("instance %d missed %d", i, n)
					}
				}
			})
		})
	}
}
