package providertest

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/carillon-go/carillon/provider"
	"github.com/carillon-go/carillon/provider/membus"
	"github.com/carillon-go/carillon/site"
)

// mutant is a Provider on a Bus that a test breaks. A nil function is what the
// Provider inside does.
type mutant struct {
	*membus.Provider
	number    int // 0, 1, … on its network
	name      func() string
	caps      func() provider.Capabilities
	onStart   func(context.Context, provider.Env) error
	onSend    func(context.Context, [][]byte) error
	onSendTo  func(context.Context, site.StreamID, [][]byte) error
	onMembers func(provider.Members)
	onClose   func() error
	addresses func() []string
}

func (m *mutant) Name() string {
	if m.name != nil {
		return m.name()
	}
	return m.Provider.Name()
}

func (m *mutant) Capabilities() provider.Capabilities {
	if m.caps != nil {
		return m.caps()
	}
	return m.Provider.Capabilities()
}

func (m *mutant) Start(ctx context.Context, env provider.Env) error {
	if m.onStart != nil {
		return m.onStart(ctx, env)
	}
	return m.Provider.Start(ctx, env)
}

func (m *mutant) Send(ctx context.Context, frames [][]byte) error {
	if m.onSend != nil {
		return m.onSend(ctx, frames)
	}
	return m.Provider.Send(ctx, frames)
}

func (m *mutant) SendTo(ctx context.Context, to site.StreamID, frames [][]byte) error {
	if m.onSendTo != nil {
		return m.onSendTo(ctx, to, frames)
	}
	return m.Provider.SendTo(ctx, to, frames)
}

func (m *mutant) SetMembers(members provider.Members) {
	if m.onMembers != nil {
		m.onMembers(members)
	}
	m.Provider.SetMembers(members)
}

func (m *mutant) Close() error {
	if m.onClose != nil {
		return m.onClose()
	}
	return m.Provider.Close()
}

func (m *mutant) Addresses() []string {
	if m.addresses != nil {
		return m.addresses()
	}
	return []string{"mem"}
}

// delivering makes m deliver through fn instead.
func (m *mutant) delivering(fn func(deliver func(provider.Batch), b provider.Batch)) {
	m.onStart = func(ctx context.Context, env provider.Env) error {
		deliver := env.Deliver
		env.Deliver = func(b provider.Batch) { fn(deliver, b) }
		return m.Provider.Start(ctx, env)
	}
}

// claiming makes m claim what fn changes.
func (m *mutant) claiming(fn func(*provider.Capabilities)) {
	m.caps = func() provider.Capabilities {
		claims := m.Provider.Capabilities()
		fn(&claims)
		return claims
	}
}

var errMutant = errors.New("mutant")

// mutation is one sentence of the contract broken, which the check named must find.
type mutation struct {
	check   string
	breaks  string
	mutate  func(t *testing.T, m *mutant)                   // applied to each Provider; may be nil
	network func(t *testing.T, net *Network, all []*mutant) // applied afterwards; may be nil
}

func mutations() []mutation {
	return append(cleanerMutations(), []mutation{
		{check: "Name", breaks: "an operator cannot type it", mutate: func(_ *testing.T, m *mutant) {
			m.name = func() string { return "My Transport" }
		}},
		{check: "Name", breaks: "differs between instances", mutate: func(_ *testing.T, m *mutant) {
			m.name = func() string { return "mem" + string(rune('0'+m.number)) }
		}},
		{check: "Name", breaks: "changes", mutate: func(_ *testing.T, m *mutant) {
			var started atomic.Bool
			m.onStart = func(ctx context.Context, env provider.Env) error {
				started.Store(true)
				return m.Provider.Start(ctx, env)
			}
			m.name = func() string {
				if started.Load() {
					return "started"
				}
				return "mem"
			}
		}},

		{check: "Capabilities", breaks: "changes after Start", mutate: func(_ *testing.T, m *mutant) {
			var started atomic.Bool
			m.onStart = func(ctx context.Context, env provider.Env) error {
				started.Store(true)
				return m.Provider.Start(ctx, env)
			}
			m.claiming(func(c *provider.Capabilities) { c.Ordered = started.Load() })
		}},
		{check: "Capabilities", breaks: "changes after Close", mutate: func(_ *testing.T, m *mutant) {
			var closed atomic.Bool
			m.onClose = func() error { closed.Store(true); return m.Provider.Close() }
			m.claiming(func(c *provider.Capabilities) { c.Ordered = !closed.Load() })
		}},
		{check: "Capabilities", breaks: "contradiction", mutate: func(_ *testing.T, m *mutant) {
			m.claiming(func(c *provider.Capabilities) { c.ReorderDelay = time.Second })
		}},
		{check: "Capabilities", breaks: "negative delay", mutate: func(_ *testing.T, m *mutant) {
			m.claiming(func(c *provider.Capabilities) { c.Ordered, c.ReorderDelay = false, -1 })
		}},
		{check: "Capabilities", breaks: "no room for a header", mutate: func(_ *testing.T, m *mutant) {
			m.claiming(func(c *provider.Capabilities) { c.MaxFrameBytes = 100 })
		}},
		{check: "Capabilities", breaks: "unproven durability", mutate: func(_ *testing.T, m *mutant) {
			m.claiming(func(c *provider.Capabilities) { c.Durable = true })
		}},
		{check: "Capabilities", breaks: "unproven security", mutate: func(_ *testing.T, m *mutant) {
			m.claiming(func(c *provider.Capabilities) { c.SecureChannel = true })
		}},

		{check: "Subscribed", breaks: "Start returns before it is", mutate: func(t *testing.T, m *mutant) {
			var late sync.WaitGroup
			m.onStart = func(ctx context.Context, env provider.Env) error {
				late.Go(func() {
					pause(100 * time.Millisecond)
					m.Provider.Start(context.Background(), env)
				})
				return nil
			}
			m.onSend = func(ctx context.Context, frames [][]byte) error {
				if err := m.Provider.Send(ctx, frames); errors.Is(err, provider.ErrClosed) {
					return err
				}
				return nil
			}
			m.onClose = func() error { late.Wait(); return m.Provider.Close() }
		}},
		{check: "AllOthers", breaks: "one never hears another", mutate: func(_ *testing.T, m *mutant) {
			m.delivering(func(deliver func(provider.Batch), b provider.Batch) {
				if id, ok := parseFrame(b.Frames[0]); !ok || m.number != 2 || id.sender != 3 {
					deliver(b)
				}
			})
		}},
		{check: "Order", breaks: "batches come backwards", mutate: func(_ *testing.T, m *mutant) {
			m.delivering(func(deliver func(provider.Batch), b provider.Batch) {
				b.Frames = slices.Clone(b.Frames)
				slices.Reverse(b.Frames)
				deliver(b)
			})
		}},
		{check: "Order", breaks: "comes twice", mutate: func(_ *testing.T, m *mutant) {
			m.delivering(func(deliver func(provider.Batch), b provider.Batch) { deliver(b); deliver(b) })
		}},
		{check: "Order", breaks: "changes a byte", mutate: func(_ *testing.T, m *mutant) {
			m.delivering(func(deliver func(provider.Batch), b provider.Batch) {
				if id, _ := parseFrame(b.Frames[0]); id.number == 7 {
					f := bytes.Clone(b.Frames[0])
					f[len(f)-1]++
					b.Frames = slices.Concat([][]byte{f}, b.Frames)
				}
				deliver(b)
			})
		}},
		{check: "Order", breaks: "delivers what was never sent", mutate: func(_ *testing.T, m *mutant) {
			m.delivering(func(deliver func(provider.Batch), b provider.Batch) {
				id, _ := parseFrame(b.Frames[0])
				id.number += 1 << 20
				b.Frames = slices.Concat(b.Frames, [][]byte{id.bytes()})
				deliver(b)
			})
		}},
		{check: "Echoes", breaks: "hears itself", mutate: func(_ *testing.T, m *mutant) {
			var deliver func(provider.Batch)
			m.onStart = func(ctx context.Context, env provider.Env) error {
				deliver = env.Deliver
				return m.Provider.Start(ctx, env)
			}
			m.onSend = func(ctx context.Context, frames [][]byte) error {
				deliver(provider.Batch{Frames: frames})
				return m.Provider.Send(ctx, frames)
			}
		}},
		{check: "Echoes", breaks: "claims to and does not", mutate: func(_ *testing.T, m *mutant) {
			m.claiming(func(c *provider.Capabilities) { c.Echoes = true })
		}},
		{check: "FrameLimit", breaks: "takes more than it says", mutate: func(_ *testing.T, m *mutant) {
			m.claiming(func(c *provider.Capabilities) { c.MaxFrameBytes = 1000 })
		}},
		{check: "FrameLimit", breaks: "takes less than it says", mutate: func(_ *testing.T, m *mutant) {
			m.claiming(func(c *provider.Capabilities) { c.MaxFrameBytes = 1000 })
			m.onSend = limited(999, provider.ErrFrameTooLarge, m.Provider.Send)
		}},
		{check: "FrameLimit", breaks: "another error", mutate: func(_ *testing.T, m *mutant) {
			m.claiming(func(c *provider.Capabilities) { c.MaxFrameBytes = 1000 })
			m.onSend = limited(1000, errMutant, m.Provider.Send)
		}},
		{check: "FrameLimit", breaks: "SendTo knows no limit", mutate: func(_ *testing.T, m *mutant) {
			m.claiming(func(c *provider.Capabilities) { c.MaxFrameBytes = 1000 })
			m.onSend = limited(1000, provider.ErrFrameTooLarge, m.Provider.Send)
		}},
		{check: "FrameLimit", breaks: "has one but does not say", mutate: func(_ *testing.T, m *mutant) {
			m.onSend = limited(64<<10, provider.ErrFrameTooLarge, m.Provider.Send)
		}},
		{check: "Batches", breaks: "an empty one is an error", mutate: func(_ *testing.T, m *mutant) {
			m.onSend = func(ctx context.Context, frames [][]byte) error {
				if len(frames) == 0 {
					return errMutant
				}
				return m.Provider.Send(ctx, frames)
			}
		}},
		{check: "Batches", breaks: "cuts long ones off", mutate: func(_ *testing.T, m *mutant) {
			m.onSend = func(ctx context.Context, frames [][]byte) error {
				return m.Provider.Send(ctx, frames[:min(len(frames), 256)])
			}
		}},
		{check: "BatchSliceIsTheCallers", breaks: "keeps it", mutate: func(_ *testing.T, m *mutant) {
			var kept [][]byte
			m.onSend = func(ctx context.Context, frames [][]byte) error { // one batch late
				err := m.Provider.Send(ctx, kept)
				kept = frames
				return err
			}
		}},
		{check: "FramesAreImmutable", breaks: "changes what was sent", mutate: func(_ *testing.T, m *mutant) {
			m.onSend = func(ctx context.Context, frames [][]byte) error {
				var copies [][]byte
				for _, f := range frames {
					copies = append(copies, bytes.Clone(f))
					f[len(f)-1]++
				}
				return m.Provider.Send(ctx, copies)
			}
		}},
		{check: "FramesAreImmutable", breaks: "uses its buffer again", mutate: func(_ *testing.T, m *mutant) {
			buffer := make([]byte, 64<<10)
			m.delivering(func(deliver func(provider.Batch), b provider.Batch) {
				if id, _ := parseFrame(b.Frames[0]); id.lane != laneProbe {
					n := copy(buffer, b.Frames[0])
					b.Frames = slices.Concat([][]byte{buffer[:n]}, b.Frames[1:])
				}
				deliver(b)
			})
		}},
		{check: "Done", breaks: "waits for it before the next batch", mutate: func(_ *testing.T, m *mutant) {
			closed := make(chan struct{})
			m.delivering(func(deliver func(provider.Batch), b provider.Batch) {
				acked := make(chan struct{})
				b.Done = func() { close(acked) }
				deliver(b)
				select {
				case <-acked:
				case <-closed:
				}
			})
			m.onClose = func() error { close(closed); return m.Provider.Close() }
		}},
		{check: "Done", breaks: "hangs after Close", mutate: func(t *testing.T, m *mutant) {
			var closed atomic.Bool
			m.delivering(func(deliver func(provider.Batch), b provider.Batch) {
				b.Done = func() {
					if closed.Load() {
						<-t.Context().Done()
					}
				}
				deliver(b)
			})
			m.onClose = func() error { closed.Store(true); return m.Provider.Close() }
			m.onSend = func(ctx context.Context, frames [][]byte) error { return m.Provider.Send(ctx, frames) }
		}},
		{check: "Resume", breaks: "nothing follows", mutate: lending(lends{notGoingOn: true})},
		{check: "Resume", breaks: "Close waits", mutate: lending(lends{waitsInClose: true})},
		{check: "Resume", breaks: "the slice is used again", mutate: lending(lends{reusesSlice: true})},
		{check: "Resume", breaks: "frames come again", mutate: lending(lends{repeats: true})},
		{check: "Resume", breaks: "a goroutine is left", mutate: lending(lends{leaks: true})},

		{check: "Serial", breaks: "a goroutine per batch", mutate: func(_ *testing.T, m *mutant) {
			var running sync.WaitGroup
			m.delivering(func(deliver func(provider.Batch), b provider.Batch) { running.Go(func() { deliver(b) }) })
			m.onClose = func() error { defer running.Wait(); return m.Provider.Close() }
		}},
		{check: "ConcurrentUse", breaks: "a method fails while another runs", mutate: func(_ *testing.T, m *mutant) {
			var calls atomic.Int32
			m.onSend = func(ctx context.Context, frames [][]byte) error {
				if calls.Load() > 0 {
					return errMutant
				}
				return m.Provider.Send(ctx, frames)
			}
			m.onSendTo = func(ctx context.Context, to site.StreamID, frames [][]byte) error {
				calls.Add(1)
				return m.Provider.SendTo(ctx, to, frames)
			}
		}},

		{check: "StartContextEnded", breaks: "looks away", mutate: func(_ *testing.T, m *mutant) {
			m.onStart = func(_ context.Context, env provider.Env) error {
				return m.Provider.Start(context.Background(), env)
			}
		}},
		{check: "StartContextEnded", breaks: "another error", mutate: func(_ *testing.T, m *mutant) {
			m.onStart = func(ctx context.Context, env provider.Env) error {
				if ctx.Err() != nil {
					return errMutant
				}
				return m.Provider.Start(ctx, env)
			}
		}},
		{check: "StartContextEnded", breaks: "stays subscribed", mutate: func(_ *testing.T, m *mutant) {
			m.onStart = func(ctx context.Context, env provider.Env) error {
				m.Provider.Start(context.Background(), env)
				return ctx.Err()
			}
		}},
		{check: "StartContextEnded", breaks: "Close fails afterwards", mutate: func(_ *testing.T, m *mutant) {
			m.onClose = func() error {
				if m.number == 1 {
					return errMutant
				}
				return m.Provider.Close()
			}
		}},
		{check: "StartContextBoundsStartAlone", breaks: "stops with it", mutate: func(_ *testing.T, m *mutant) {
			var ctx atomic.Pointer[context.Context]
			m.onStart = func(c context.Context, env provider.Env) error {
				ctx.Store(&c)
				return m.Provider.Start(c, env)
			}
			m.onSend = func(c context.Context, frames [][]byte) error {
				if err := (*ctx.Load()).Err(); err != nil {
					return err
				}
				return m.Provider.Send(c, frames)
			}
		}},
		{check: "StartFails", breaks: "does not", network: func(_ *testing.T, net *Network, _ []*mutant) {
			bus := membus.New()
			net.Broken = func() provider.Provider { return bus.Provider() }
		}},
		{check: "StartFails", breaks: "leaves a goroutine", network: func(t *testing.T, net *Network, _ []*mutant) {
			net.Broken = func() provider.Provider {
				m := &mutant{Provider: membus.New().Provider()}
				m.onStart = func(_ context.Context, env provider.Env) error {
					m.Provider.Start(context.Background(), env)
					return errMutant
				}
				return m
			}
		}},
		{check: "StartFails", breaks: "says that it is closed", network: func(t *testing.T, net *Network, _ []*mutant) {
			net.Broken = func() provider.Provider {
				m := &mutant{Provider: membus.New().Provider()}
				m.onStart = func(context.Context, provider.Env) error { return provider.ErrClosed }
				return m
			}
		}},
		{check: "StartWithoutAnswer", breaks: "hangs", network: func(t *testing.T, net *Network, _ []*mutant) {
			net.Silent = func() provider.Provider {
				m := &mutant{Provider: membus.New().Provider()}
				m.onStart = func(context.Context, provider.Env) error { <-t.Context().Done(); return errMutant }
				return m
			}
		}},
		{check: "SendContext", breaks: "ended is taken for closed", mutate: func(_ *testing.T, m *mutant) {
			m.onSend = func(ctx context.Context, frames [][]byte) error {
				if ctx.Err() != nil {
					return provider.ErrClosed
				}
				return m.Provider.Send(ctx, frames)
			}
		}},
		{check: "SendContext", breaks: "waits for ever for a slow receiver", mutate: blocking(func(ctx context.Context) context.Context { return context.Background() })},

		{check: "CloseFlushes", breaks: "drops what waits", mutate: func(_ *testing.T, m *mutant) {
			var waiting sync.WaitGroup
			closed := make(chan struct{})
			var once sync.Once
			m.onSend = func(ctx context.Context, frames [][]byte) error {
				frames = slices.Clone(frames)
				waiting.Go(func() {
					timer := time.NewTimer(50 * time.Millisecond)
					defer timer.Stop()
					select {
					case <-closed:
					case <-timer.C:
						m.Provider.Send(context.Background(), frames)
					}
				})
				return nil
			}
			m.onClose = func() error {
				once.Do(func() { close(closed) })
				waiting.Wait()
				return m.Provider.Close()
			}
		}},
		{check: "CloseTwice", breaks: "is an error", mutate: func(_ *testing.T, m *mutant) {
			var closes atomic.Int32
			m.onClose = func() error {
				if closes.Add(1) > 1 {
					return errMutant
				}
				return m.Provider.Close()
			}
		}},
		{check: "CloseUnstarted", breaks: "is an error", mutate: func(_ *testing.T, m *mutant) {
			var started atomic.Bool
			m.onClose = func() error {
				if !started.Load() {
					return errMutant
				}
				return m.Provider.Close()
			}
		}},
		{check: "CloseUnstarted", breaks: "Start works afterwards", mutate: func(_ *testing.T, m *mutant) {
			m.onStart = func(context.Context, provider.Env) error { return nil }
		}},
		{check: "SendAfterClose", breaks: "Send looks away", mutate: func(_ *testing.T, m *mutant) {
			m.onSend = func(ctx context.Context, frames [][]byte) error {
				if err := m.Provider.Send(ctx, frames); !errors.Is(err, provider.ErrClosed) {
					return err
				}
				return nil
			}
		}},
		{check: "SendAfterClose", breaks: "SendTo says something else", mutate: func(_ *testing.T, m *mutant) {
			m.onSendTo = func(ctx context.Context, to site.StreamID, frames [][]byte) error {
				if err := m.Provider.SendTo(ctx, to, frames); err != nil {
					return provider.ErrUnreachable
				}
				return nil
			}
		}},
		{check: "CloseEndsWaitingSend", breaks: "Send waits on", mutate: blocking(func(ctx context.Context) context.Context { return ctx })},
		{check: "CloseEndsWaitingSend", breaks: "Send says something else", mutate: func(_ *testing.T, m *mutant) {
			m.onSend = func(ctx context.Context, frames [][]byte) error {
				if err := m.Provider.Send(ctx, frames); err != nil {
					return errMutant
				}
				return nil
			}
		}},
		{check: "CloseWaitsForDeliver", breaks: "it does not", mutate: inBackground},
		{check: "CloseUnderLoad", breaks: "Deliver afterwards", mutate: func(t *testing.T, m *mutant) {
			m.onClose = func() error {
				ended := make(chan struct{})
				go func() { defer close(ended); m.Provider.Close() }()
				t.Cleanup(func() { <-ended })
				return nil
			}
			m.delivering(func(deliver func(provider.Batch), b provider.Batch) {
				pause(5 * time.Millisecond)
				deliver(b)
			})
		}},
		{check: "CloseTwice", breaks: "a goroutine goes on", mutate: func(t *testing.T, m *mutant) {
			m.onStart = func(ctx context.Context, env provider.Env) error {
				go func() { <-t.Context().Done() }()
				return m.Provider.Start(ctx, env)
			}
		}},
		{check: "CloseOfOneLeavesOthers", breaks: "Send fails for want of one", mutate: func(t *testing.T, m *mutant) {
			var members atomic.Int32
			gone := make(chan struct{})
			m.onMembers = func(all provider.Members) {
				if n := int32(len(all.Others)); members.Swap(n) > n {
					close(gone)
				}
			}
			m.onSend = func(ctx context.Context, frames [][]byte) error {
				select {
				case <-gone:
					return errMutant
				default:
					return m.Provider.Send(ctx, frames)
				}
			}
		}},

		{check: "SendTo", breaks: "reaches all", mutate: func(_ *testing.T, m *mutant) {
			m.onSendTo = func(ctx context.Context, _ site.StreamID, frames [][]byte) error {
				return m.Provider.Send(ctx, frames)
			}
		}},
		{check: "SendTo", breaks: "reaches nobody", mutate: func(_ *testing.T, m *mutant) {
			m.onSendTo = func(context.Context, site.StreamID, [][]byte) error { return nil }
		}},
		{check: "SendToUnknown", breaks: "no error", mutate: func(_ *testing.T, m *mutant) {
			m.onSendTo = func(ctx context.Context, to site.StreamID, frames [][]byte) error {
				m.Provider.SendTo(ctx, to, frames)
				return nil
			}
		}},
		{check: "NewStream", breaks: "keeps the old one", mutate: func(_ *testing.T, m *mutant) {
			known := make(map[site.StreamID]bool)
			var mu sync.Mutex
			m.onMembers = func(all provider.Members) {
				mu.Lock()
				defer mu.Unlock()
				if len(known) == 0 {
					for _, other := range all.Others {
						known[other.Stream] = true
					}
				}
			}
			m.onSendTo = func(ctx context.Context, to site.StreamID, frames [][]byte) error {
				mu.Lock()
				defer mu.Unlock()
				if !known[to] {
					return provider.ErrUnreachable
				}
				return m.Provider.SendTo(ctx, to, frames)
			}
		}},
		{check: "Addresses", breaks: "there is none", mutate: func(_ *testing.T, m *mutant) {
			m.addresses = func() []string { return nil }
		}},
		{check: "Addresses", breaks: "changes", mutate: func(_ *testing.T, m *mutant) {
			var n atomic.Int32
			m.addresses = func() []string { return []string{string(rune('a' + n.Add(1)))} }
		}},
		{check: "SetMembersDoesNotBlock", breaks: "it does", mutate: func(t *testing.T, m *mutant) {
			m.onMembers = func(all provider.Members) {
				if len(all.Others) > 100 {
					<-t.Context().Done()
				}
			}
		}},
		{check: "SetMembersDoesNotBlock", breaks: "changes the list", mutate: func(t *testing.T, m *mutant) {
			m.onMembers = func(all provider.Members) {
				if len(all.Others) > 100 {
					slices.Reverse(all.Others)
				}
			}
		}},

		{check: "SlowReceiver", breaks: "Send waits for it", mutate: blocking(func(ctx context.Context) context.Context { return ctx })},
		{check: "SlowReceiver", breaks: "others hear nothing meanwhile", mutate: stalling},
		{check: "SlowReceiver", breaks: "it never hears again", mutate: func(_ *testing.T, m *mutant) {
			behind := false
			m.delivering(func(deliver func(provider.Batch), b provider.Batch) {
				start := time.Now()
				if !behind {
					deliver(b)
				}
				behind = behind || m.number == 2 && time.Since(start) > 2*time.Millisecond
			})
		}},
		{check: "Prompt", breaks: "waits for a slow receiver", mutate: blocking(func(context.Context) context.Context { return context.Background() })}, // membus claims Prompt
		{check: "Prompt", breaks: "is claimed beside back-pressure", mutate: func(_ *testing.T, m *mutant) {
			m.claiming(func(c *provider.Capabilities) { c.Prompt, c.BackPressure = true, true })
		}},
		{check: "BackPressure", breaks: "drops instead", mutate: func(t *testing.T, m *mutant) {
			m.claiming(func(c *provider.Capabilities) { c.BackPressure = true })
			n := 0
			m.onSend = func(ctx context.Context, frames [][]byte) error {
				if n++; n%2 == 0 {
					return nil
				}
				return m.Provider.Send(ctx, frames)
			}
		}},
		{check: "ReceiveBuffer", breaks: "keeps less than it told", mutate: func(_ *testing.T, m *mutant) {
			m.onStart = func(ctx context.Context, env provider.Env) error {
				env.ReceiveBuffer(1 << 20)
				return m.Provider.Start(ctx, env)
			}
			m.onSend = func(ctx context.Context, frames [][]byte) error {
				if len(frames) == 64 { // as the suite fills the buffer
					frames = frames[:63]
				}
				return m.Provider.Send(ctx, frames)
			}
		}},
		{check: "ReceiveBuffer", breaks: "is no number of bytes", mutate: func(_ *testing.T, m *mutant) {
			m.onStart = func(ctx context.Context, env provider.Env) error {
				env.ReceiveBuffer(-1)
				return m.Provider.Start(ctx, env)
			}
		}},
		{check: "ReceiveBuffer", breaks: "is told too late", mutate: func(_ *testing.T, m *mutant) {
			m.onStart = func(ctx context.Context, env provider.Env) error {
				deliver := env.Deliver
				env.Deliver = func(b provider.Batch) {
					env.ReceiveBuffer(1 << 20)
					deliver(b)
				}
				return m.Provider.Start(ctx, env)
			}
		}},
		{check: "Garbage", breaks: "a secure channel lets it in", mutate: insecure, network: garbage},
		{check: "Garbage", breaks: "silences the receiver", mutate: func(_ *testing.T, m *mutant) {
			deaf := false
			m.delivering(func(deliver func(provider.Batch), b provider.Batch) {
				if _, ok := parseFrame(b.Frames[0]); !ok {
					deaf = true
				}
				if !deaf {
					deliver(b)
				}
			})
		}, network: garbage},
		{check: "CutAndHealed", breaks: "never comes back", network: func(_ *testing.T, net *Network, all []*mutant) {
			net.Cut = func(i int) { all[i].Cut() }
			net.Heal = func(int) {}
		}},
		{check: "CutAndHealed", breaks: "says nothing of what was lost", mutate: func(_ *testing.T, m *mutant) {
			m.onStart = func(ctx context.Context, env provider.Env) error {
				env.Reconnected = func() {}
				return m.Provider.Start(ctx, env)
			}
		}, network: cuttable},
		{check: "CutAndHealed", breaks: "final error for want of a link", mutate: func(_ *testing.T, m *mutant) {
			m.onSend = func(ctx context.Context, frames [][]byte) error {
				if err := m.Provider.Send(ctx, frames); err != nil {
					return provider.ErrClosed
				}
				return nil
			}
		}, network: cuttable},
		{check: "CutAndHealed", breaks: "others fail for want of one link", network: func(t *testing.T, net *Network, all []*mutant) {
			cuttable(t, net, all)
			var cut atomic.Bool
			net.Cut = func(i int) { cut.Store(true); all[i].Cut() }
			all[0].onSend = func(ctx context.Context, frames [][]byte) error {
				if cut.Load() {
					return errMutant
				}
				return all[0].Provider.Send(ctx, frames)
			}
		}},
		{check: "Durable", breaks: "loses what was accepted", mutate: func(_ *testing.T, m *mutant) {
			m.claiming(func(c *provider.Capabilities) { c.Durable = true })
		}, network: func(_ *testing.T, net *Network, all []*mutant) {
			net.Restart = func() {
				for _, m := range all {
					m.Cut()
				}
				for _, m := range all {
					m.Heal()
				}
			}
		}},
	}...)
}

func TestChecks_FindWhatIsBroken(t *testing.T) {
	for _, tt := range mutations() {
		t.Run(tt.check+"/"+tt.breaks, func(t *testing.T) {
			h := HarnessFunc(func(_ testing.TB, n int) *Network {
				bus := membus.New()
				net := &Network{Patience: 200 * time.Millisecond, Settle: 20 * time.Millisecond, FloodBytes: 4 << 20}
				var all []*mutant
				for i := range n {
					m := &mutant{Provider: bus.Provider(), number: i}
					if tt.mutate != nil {
						tt.mutate(t, m)
					}
					all = append(all, m)
					net.Providers = append(net.Providers, m)
				}
				if tt.network != nil {
					tt.network(t, net, all)
				}
				return net
			})
			found := runCheck(t, h, tt.check)
			if len(found) == 0 {
				t.Error("the check found no problem")
			}
			for _, p := range found {
				if p.rule == "" || strings.Contains(p.detail, "%!") {
					t.Errorf("problem without explanation: %q", p)
				}
				t.Log(p)
			}
		})
	}
}

// The same checks find nothing wrong with a Provider that nobody broke, so what they find in
// the mutants is the mutation.
func TestChecks_AcceptWhatIsWhole(t *testing.T) {
	Run(t, HarnessFunc(func(tb testing.TB, n int) *Network {
		bus := membus.New()
		net := &Network{Settle: 20 * time.Millisecond, FloodBytes: 4 << 20}
		var all []*mutant
		for i := range n {
			m := &mutant{Provider: bus.Provider(), number: i}
			all = append(all, m)
			net.Providers = append(net.Providers, m)
		}
		cuttable(t, net, all)
		garbage(t, net, all)
		net.Broken = func() provider.Provider {
			m := &mutant{Provider: membus.New().Provider()}
			m.onStart = func(context.Context, provider.Env) error { return errMutant }
			return m
		}
		net.Silent = func() provider.Provider {
			m := &mutant{Provider: membus.New().Provider()}
			m.onStart = func(ctx context.Context, _ provider.Env) error { <-ctx.Done(); return ctx.Err() }
			return m
		}
		net.Restart = func() {}
		return net
	}))
}

// The same of one that lends the goroutines that deliver.
func TestChecks_AcceptWhoLendsGoroutines(t *testing.T) {
	Run(t, HarnessFunc(func(_ testing.TB, n int) *Network {
		bus := membus.New()
		net := &Network{Settle: 20 * time.Millisecond, FloodBytes: 4 << 20}
		for i := range n {
			m := &mutant{Provider: bus.Provider(), number: i}
			lending(lends{})(t, m)
			net.Providers = append(net.Providers, m)
		}
		return net
	}))
}

// runCheck runs one of the checks.
func runCheck(t *testing.T, h Harness, name string) []problem {
	for _, entry := range checks() {
		if entry.name == name {
			return entry.problems(t, h)
		}
	}
	t.Fatalf("there is no check called %q", name)
	return nil
}

// A check that no mutant fails might pass whatever happens.
func TestChecks_AllHaveAMutant(t *testing.T) {
	mutated := make(map[string]bool)
	for _, m := range mutations() {
		mutated[m.check] = true
	}
	names := make(map[string]bool)
	for _, c := range checks() {
		if names[c.name] || c.rule == "" {
			t.Errorf("check %q is there twice or has no rule", c.name)
		}
		if names[c.name] = true; !mutated[c.name] {
			t.Errorf("no mutant fails check %q", c.name)
		}
	}
}

func limited(limit int, err error, send func(context.Context, [][]byte) error) func(context.Context, [][]byte) error {
	return func(ctx context.Context, frames [][]byte) error {
		for _, f := range frames {
			if len(f) > limit {
				return err
			}
		}
		return send(ctx, frames)
	}
}

// lends is what is wrong with a Provider that lends the goroutines that deliver.
type lends struct{ notGoingOn, waitsInClose, reusesSlice, repeats, leaks bool }

// lending makes m lend them, as Batch.Resume says but for what is wrong.
func lending(wrong lends) func(*testing.T, *mutant) {
	return func(t *testing.T, m *mutant) {
		var running sync.WaitGroup
		t.Cleanup(running.Wait)
		m.delivering(func(deliver func(provider.Batch), b provider.Batch) {
			b.Frames = slices.Clone(b.Frames)
			resumed, returned := make(chan struct{}), make(chan struct{})
			b.Resume = func() {
				if wrong.reusesSlice {
					clear(b.Frames)
				}
				if !wrong.notGoingOn {
					close(resumed)
				}
			}
			running.Go(func() { defer close(returned); deliver(b) })
			select {
			case <-returned:
				return
			case <-resumed:
			}
			if wrong.repeats {
				deliver(provider.Batch{Frames: b.Frames, From: b.From})
			}
			if wrong.leaks {
				go func() { <-t.Context().Done() }()
			}
		})
		if wrong.waitsInClose {
			m.onClose = func() error {
				defer running.Wait()
				return m.Provider.Close()
			}
		}
	}
}

// blocking makes Send wait while any receiver stands still, until the context that
// fn returns ends; Close does not end it.
func blocking(fn func(context.Context) context.Context) func(*testing.T, *mutant) {
	var busy atomic.Int32
	return func(t *testing.T, m *mutant) {
		m.delivering(func(deliver func(provider.Batch), b provider.Batch) {
			busy.Add(1)
			defer busy.Add(-1)
			deliver(b)
		})
		m.onSend = func(ctx context.Context, frames [][]byte) error {
			if err := m.Provider.Send(ctx, frames); err != nil {
				return err
			}
			ctx, cancel := context.WithCancel(fn(ctx))
			defer cancel()
			defer context.AfterFunc(t.Context(), cancel)()
			patience := 10 // its delivery may not have begun yet, that of a flood above all
			if len(frames) > 1 {
				patience = 150
			}
			for i := 0; i < patience && busy.Load() == 0; i++ {
				pause(time.Millisecond)
			}
			for busy.Load() > 0 {
				pause(time.Millisecond)
				if err := ctx.Err(); err != nil {
					return err
				}
			}
			return nil
		}
	}
}

// stalling makes the last of three, when it stands still, keep the frames of the others.
func stalling(t *testing.T, m *mutant) {
	m.onSend = func(ctx context.Context, frames [][]byte) error {
		if id, ok := parseFrame(frames[0]); ok && id.lane == laneLoose {
			return nil
		}
		return m.Provider.Send(ctx, frames)
	}
}

// inBackground makes Close return at once and do its work later.
func inBackground(t *testing.T, m *mutant) {
	m.onClose = func() error {
		ended := make(chan struct{})
		go func() { defer close(ended); m.Provider.Close() }()
		t.Cleanup(func() { <-ended })
		return nil
	}
}

func insecure(_ *testing.T, m *mutant) {
	m.claiming(func(c *provider.Capabilities) { c.SecureChannel = true })
}

// garbage puts what strangers write on the Bus.
func garbage(t *testing.T, net *Network, all []*mutant) {
	net.Garbage = func(i int, b []byte) error {
		if insecure := all[0].caps != nil; !insecure && len(b) < frameHeaderLen {
			return errMutant
		}
		return all[(i+1)%len(all)].Provider.Send(t.Context(), [][]byte{b})
	}
}

func cuttable(_ *testing.T, net *Network, all []*mutant) {
	net.Cut = func(i int) { all[i].Cut() }
	net.Heal = func(i int) { all[i].Heal() }
}

// pause is what a mutant does that is slow.
func pause(d time.Duration) {
	timer := time.NewTimer(d)
	<-timer.C
}
