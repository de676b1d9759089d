package providertest_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/bits"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/carillon-go/carillon/provider"
	"github.com/carillon-go/carillon/provider/membus"
	"github.com/carillon-go/carillon/provider/providertest"
	"github.com/carillon-go/carillon/site"
)

// faultyHarness wraps every provider on a Bus.
func faultyHarness(faults providertest.Faults, lossy bool) providertest.Harness {
	return providertest.HarnessFunc(func(_ testing.TB, n int) *providertest.Network {
		bus := membus.New()
		net := &providertest.Network{Lossy: lossy}
		if lossy {
			net.Settle, net.FloodBytes = 20*time.Millisecond, 4<<20
		}
		for range n {
			net.Providers = append(net.Providers, providertest.Faulty(bus.Provider(), faults))
		}
		partitioned := func(i int) providertest.FaultyProvider { return net.Providers[i].(providertest.FaultyProvider) }
		net.Cut = func(i int) { partitioned(i).SetPartition(providertest.Both) }
		net.Heal = func(i int) { partitioned(i).Heal() }
		net.Unnoticed = true
		return net
	})
}

func TestFaulty_KeepsTheContract(t *testing.T) {
	t.Run("without faults", func(t *testing.T) {
		providertest.Run(t, faultyHarness(providertest.Faults{}, false))
	})
	t.Run("delays", func(t *testing.T) {
		r := providertest.Rates{Delay: 2 * time.Millisecond}
		providertest.Run(t, faultyHarness(providertest.Faults{Out: r, In: r}, false))
	})
	t.Run("everything but damage", func(t *testing.T) {
		r := providertest.Rates{
			Drop: 0.1, Duplicate: 0.1, Reorder: 0.1,
			Delay: time.Millisecond, Jitter: 2 * time.Millisecond,
		}
		providertest.Run(t, faultyHarness(providertest.Faults{Seed: 1, Out: r, In: r}, true))
	})
}

// pair starts two endpoints of which the first has faults. It runs in a
// bubble or outside one.
func pair(t *testing.T, faults providertest.Faults) (faulty providertest.FaultyProvider, a, b *providertest.Endpoint) {
	bus := membus.New()
	faulty = providertest.Faulty(bus.Provider(), faults)
	a, b = providertest.Start(t, faulty), providertest.Start(t, bus.Provider())
	providertest.Introduce(a, b)
	return faulty, a, b
}

// numbered returns n frames that differ.
func numbered(n int) [][]byte {
	frames := make([][]byte, n)
	for i := range frames {
		frames[i] = fmt.Appendf(nil, "frame %05d", i)
	}
	return frames
}

// each sends frames in batches of one.
func each(t *testing.T, p provider.Provider, frames [][]byte) {
	t.Helper()
	for _, f := range frames {
		if err := p.Send(t.Context(), [][]byte{f}); err != nil {
			t.Fatal(err)
		}
	}
}

func TestFaulty_DropsTheShareAskedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, a, b := pair(t, providertest.Faults{Seed: 7, Out: providertest.Rates{Drop: 0.3}, In: providertest.Rates{Drop: 0.6}})
		each(t, a.Provider, numbered(2000))
		each(t, b.Provider, numbered(2000))
		synctest.Wait()
		out, in := 2000-len(b.Frames()), 2000-len(a.Frames())
		if out < 500 || out > 700 || in < 1100 || in > 1300 {
			t.Errorf("of 2000 each way, %d sent and %d arriving were dropped; want about 600 and 1200", out, in)
		}
		if got := f.Injected().Dropped; got != uint64(out+in) {
			t.Errorf("Injected().Dropped = %d, want %d", got, out+in)
		}
	})
}

func TestFaulty_IsDeterministic(t *testing.T) {
	run := func(seed uint64, batch int) (heard [][]byte) {
		synctest.Test(t, func(t *testing.T) {
			r := providertest.Rates{Drop: 0.2, Duplicate: 0.2, Reorder: 0.2, Corrupt: 0.2, Jitter: time.Second}
			_, a, b := pair(t, providertest.Faults{Seed: seed, Out: r, In: r})
			for frames := range slices.Chunk(numbered(300), batch) {
				if err := a.Provider.Send(t.Context(), frames); err != nil {
					t.Fatal(err)
				}
				if err := b.Provider.Send(t.Context(), frames); err != nil {
					t.Fatal(err)
				}
			}
			time.Sleep(time.Minute)
			synctest.Wait()
			heard = slices.Concat(a.Frames(), b.Frames())
		})
		return heard
	}
	equal := func(a, b [][]byte) bool { return slices.EqualFunc(a, b, bytes.Equal) }
	first := run(1, 1)
	if !equal(first, run(1, 1)) {
		t.Error("the same seed gave another result")
	}
	if !equal(first, run(1, 7)) {
		t.Error("the same seed gave another result because the batches had another length")
	}
	if equal(first, run(2, 1)) {
		t.Error("another seed gave the same result")
	}
}

func TestFaulty_DuplicatesAndClaimsIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, a, b := pair(t, providertest.Faults{Out: providertest.Rates{Duplicate: 1}})
		if !f.Capabilities().Redelivers {
			t.Error("Redelivers is not claimed")
		}
		each(t, a.Provider, numbered(3))
		synctest.Wait()
		if got := len(b.Frames()); got != 6 {
			t.Errorf("3 frames duplicated arrived as %d", got)
		}
	})
}

func TestFaulty_DelaysInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, a, b := pair(t, providertest.Faults{Out: providertest.Rates{Delay: time.Hour}, In: providertest.Rates{Delay: time.Minute}})
		if !f.Capabilities().Ordered {
			t.Error("Ordered is not claimed, and an equal delay changes no order")
		}
		frames := numbered(50)
		each(t, a.Provider, frames)
		each(t, b.Provider, frames)
		time.Sleep(time.Minute - 1)
		synctest.Wait()
		if n := len(a.Frames()); n != 0 {
			t.Errorf("1ns before the minute, %d frames had arrived", n)
		}
		time.Sleep(time.Nanosecond)
		synctest.Wait()
		if !slices.EqualFunc(a.Frames(), frames, bytes.Equal) {
			t.Errorf("after the minute, arrived: %q", a.Frames())
		}
		time.Sleep(time.Hour - time.Minute - 1)
		synctest.Wait()
		if n := len(b.Frames()); n != 0 {
			t.Errorf("1ns before the hour, %d frames had arrived", n)
		}
		time.Sleep(time.Nanosecond)
		synctest.Wait()
		if !slices.EqualFunc(b.Frames(), frames, bytes.Equal) {
			t.Errorf("after the hour, arrived: %q", b.Frames())
		}
	})
}

func TestFaulty_ReordersAndClaimsIt(t *testing.T) {
	for name, r := range map[string]providertest.Rates{
		"held back": {Reorder: 0.3},
		"jitter":    {Jitter: time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f, a, b := pair(t, providertest.Faults{Out: r})
				if f.Capabilities().Ordered {
					t.Error("Ordered is claimed")
				}
				frames := numbered(100)
				each(t, a.Provider, frames)
				time.Sleep(time.Second)
				synctest.Wait()
				got := b.Frames()
				if slices.EqualFunc(got, frames, bytes.Equal) {
					t.Error("nothing was reordered")
				}
				slices.SortFunc(got, bytes.Compare)
				if !slices.EqualFunc(got, frames, bytes.Equal) {
					t.Errorf("something was lost or came twice: %q", got)
				}
			})
		})
	}
}

func TestFaulty_CorruptsACopy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, a, b := pair(t, providertest.Faults{Out: providertest.Rates{Corrupt: 1}})
		frames := numbered(100)
		each(t, a.Provider, frames)
		synctest.Wait()
		for i, f := range b.Frames() {
			wrong := 0
			for j := range f {
				wrong += bits.OnesCount8(f[j] ^ frames[i][j])
			}
			if wrong != 1 {
				t.Errorf("frame %d has %d wrong bits, want 1", i, wrong)
			}
		}
		if !slices.EqualFunc(frames, numbered(100), bytes.Equal) {
			t.Error("the sender's own frames were changed")
		}
	})
}

func TestFaulty_PartitionsEachDirectionUntilHealed(t *testing.T) {
	for _, tt := range []struct {
		partition         providertest.Direction
		hearsOut, hearsIn bool
	}{
		{0, true, true},
		{providertest.Out, false, true},
		{providertest.In, true, false},
		{providertest.Both, false, false},
	} {
		t.Run(fmt.Sprint(tt.partition), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f, a, b := pair(t, providertest.Faults{})
				toB, toA := [][]byte{[]byte("to b")}, [][]byte{[]byte("to a")}
				both := func() (hearsOut, hearsIn bool) {
					before, after := len(b.Frames()), len(a.Frames())
					if err := a.Provider.Send(t.Context(), toB); err != nil {
						t.Errorf("Send: %v", err)
					}
					b.Provider.Send(t.Context(), toA)
					synctest.Wait()
					return len(b.Frames()) > before, len(a.Frames()) > after
				}
				f.SetPartition(tt.partition)
				if out, in := both(); out != tt.hearsOut || in != tt.hearsIn {
					t.Errorf("partitioned: others hear %v, it hears %v; want %v, %v", out, in, tt.hearsOut, tt.hearsIn)
				}
				f.Heal()
				if out, in := both(); !out || !in {
					t.Errorf("healed: others hear %v, it hears %v; want both", out, in)
				}
			})
		})
	}
}

func TestFaulty_PartitionLosesWhatIsDelayed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := providertest.Rates{Delay: time.Second}
		f, a, b := pair(t, providertest.Faults{Out: r, In: r})
		each(t, a.Provider, numbered(3))
		each(t, b.Provider, numbered(3))
		synctest.Wait()
		f.SetPartition(providertest.Both)
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if len(a.Frames())+len(b.Frames()) != 0 {
			t.Errorf("heard %d and %d frames through a partition", len(a.Frames()), len(b.Frames()))
		}
		if got := f.Injected().Partitioned; got != 6 {
			t.Errorf("Injected().Partitioned = %d, want 6", got)
		}
	})
}

func TestFaulty_ChangesItsRates(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, a, b := pair(t, providertest.Faults{Out: providertest.Rates{Drop: 1}})
		each(t, a.Provider, numbered(5))
		f.SetRates(providertest.Rates{}, providertest.Rates{})
		each(t, a.Provider, numbered(7))
		synctest.Wait()
		if n := len(b.Frames()); n != 7 {
			t.Errorf("heard %d frames, want the 7 sent after the rates were set to nothing", n)
		}
	})
}

func TestFaulty_CloseSendsWhatIsDelayed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, a, b := pair(t, providertest.Faults{Out: providertest.Rates{Delay: time.Hour}})
		frames := numbered(20)
		each(t, a.Provider, frames)
		start := time.Now()
		if err := f.Close(); err != nil {
			t.Error(err)
		}
		if d := time.Since(start); d > time.Second {
			t.Errorf("Close took %v", d)
		}
		synctest.Wait()
		if !slices.EqualFunc(b.Frames(), frames, bytes.Equal) {
			t.Errorf("heard %d of %d frames", len(b.Frames()), len(frames))
		}
	})
}

func TestFaulty_BoundsWhatWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, a, b := pair(t, providertest.Faults{Out: providertest.Rates{Delay: time.Hour}})
		batch := slices.Repeat([][]byte{[]byte("x")}, 1024)
		for range 70 {
			a.Provider.Send(t.Context(), batch)
		}
		time.Sleep(time.Hour)
		synctest.Wait()
		if n := len(b.Frames()); n != 64*1024 {
			t.Errorf("%d frames had waited, want 65536", n)
		}
		if got := f.Injected().Overflowed; got != 6*1024 {
			t.Errorf("Injected().Overflowed = %d, want %d", got, 6*1024)
		}
	})
}

// Done is the acknowledgement to a message broker: once for the batch that came,
// however its frames were dropped, copied or spread over time.
func TestFaulty_CallsDoneOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		acking := &ackingProvider{Provider: membus.New().Provider()}
		r := providertest.Rates{Drop: 0.5, Duplicate: 0.5, Jitter: time.Second}
		f := providertest.Faulty(acking, providertest.Faults{Seed: 3, In: r})
		providertest.Start(t, f)
		var done []int
		for i := range 200 {
			done = append(done, 0)
			acking.env.Deliver(provider.Batch{Frames: numbered(i % 5), Done: func() { done[i]++ }})
			synctest.Wait()
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		for i, n := range done {
			if n != 1 {
				t.Errorf("Done of batch %d with %d frames was called %d times", i, i%5, n)
			}
		}
		f.SetPartition(providertest.In)
		lost := 0
		acking.env.Deliver(provider.Batch{Frames: numbered(3), Done: func() { lost++ }})
		if lost != 1 {
			t.Errorf("Done of a batch lost to a partition was called %d times", lost)
		}
	})
}

// ackingProvider gives its environment away, so that a test can deliver.
type ackingProvider struct {
	provider.Provider
	env provider.Env
}

func (p *ackingProvider) Start(ctx context.Context, env provider.Env) error {
	p.env = env
	return p.Provider.Start(ctx, env)
}

func TestFaulty_KeepsErrorsWhateverIsDropped(t *testing.T) {
	bus := membus.New()
	limited := &limitedProvider{Provider: bus.Provider()}
	f := providertest.Faulty(limited, providertest.Faults{Out: providertest.Rates{Drop: 1}})
	providertest.Start(t, f)
	if err := f.Send(t.Context(), [][]byte{make([]byte, 301)}); !errors.Is(err, provider.ErrFrameTooLarge) {
		t.Errorf("a frame too large: %v", err)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if err := f.Send(ended, numbered(1)); !errors.Is(err, context.Canceled) {
		t.Errorf("a ctx that has ended: %v", err)
	}
	f.Close()
	if err := f.Send(t.Context(), numbered(1)); !errors.Is(err, provider.ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
}

type limitedProvider struct{ provider.Provider }

func (p *limitedProvider) Capabilities() provider.Capabilities {
	return provider.Capabilities{MaxFrameBytes: 300}
}

// Types that have exactly the optional methods named.
type (
	unicast   struct{ provider.Provider }
	watch     struct{ provider.Provider }
	advertise struct{ provider.Provider }
)

func (unicast) SendTo(context.Context, site.StreamID, [][]byte) error { return nil }
func (watch) SetMembers(provider.Members)                             {}
func (advertise) Addresses() []string                                 { return []string{"a"} }

type clean struct{ advertise }

func (clean) Subscriptions(context.Context, site.ID) ([]provider.Subscription, error) {
	return nil, nil
}
func (clean) Unsubscribe(context.Context, site.ID, provider.Subscription) error { return nil }

func TestFaulty_CanDoWhatTheProviderInsideCan(t *testing.T) {
	p := membus.New().Provider()
	plain := struct{ provider.Provider }{p}
	for name, inner := range map[string]provider.Provider{
		"none":      plain,
		"unicast":   unicast{plain},
		"watch":     watch{plain},
		"advertise": advertise{plain},
		"unicast and watch": struct {
			unicast
			watchOnly
		}{unicast{plain}, watch{plain}},
		"unicast and advertise": struct {
			unicast
			advertiseOnly
		}{unicast{plain}, advertise{plain}},
		"watch and advertise": struct {
			watch
			advertiseOnly
		}{watch{plain}, advertise{plain}},
		"all": struct {
			unicast
			watchOnly
			advertiseOnly
		}{unicast{plain}, watch{plain}, advertise{plain}},
		"clean": clean{advertise{plain}},
		"unicast and clean": struct {
			unicast
			cleanOnly
		}{unicast{plain}, clean{advertise{plain}}},
		"watch and clean": struct {
			watch
			cleanOnly
		}{watch{plain}, clean{advertise{plain}}},
		"all and clean": struct {
			unicast
			watchOnly
			cleanOnly
		}{unicast{plain}, watch{plain}, clean{advertise{plain}}},
	} {
		var wrapped provider.Provider = providertest.Faulty(inner, providertest.Faults{})
		_, u0 := inner.(provider.Unicaster)
		_, u1 := wrapped.(provider.Unicaster)
		_, w0 := inner.(provider.MemberWatcher)
		_, w1 := wrapped.(provider.MemberWatcher)
		_, a0 := inner.(provider.Advertiser)
		_, a1 := wrapped.(provider.Advertiser)
		_, c0 := inner.(provider.Cleaner)
		_, c1 := wrapped.(provider.Cleaner)
		if u0 != u1 || w0 != w1 || a0 != a1 || c0 != c1 {
			t.Errorf("%s: Unicaster, MemberWatcher, Advertiser, Cleaner are %v %v %v %v inside and %v %v %v %v outside", name, u0, w0, a0, c0, u1, w1, a1, c1)
		}
	}
}

type (
	watchOnly     interface{ SetMembers(provider.Members) }
	advertiseOnly interface{ Addresses() []string }
	cleanOnly     interface {
		advertiseOnly
		Subscriptions(context.Context, site.ID) ([]provider.Subscription, error)
		Unsubscribe(context.Context, site.ID, provider.Subscription) error
	}
)
