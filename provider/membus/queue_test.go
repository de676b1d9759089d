package membus

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/carillon-go/carillon/provider"
	"github.com/carillon-go/carillon/site"
)

func frames(n, size int) [][]byte {
	fs := make([][]byte, n)
	for i := range fs {
		fs[i] = bytes.Repeat([]byte{byte(i)}, size)
	}
	return fs
}

func TestQueue_RefusesWhatExceedsItsLimits(t *testing.T) {
	for _, tt := range []struct {
		name    string
		puts    []item
		frames  int // left in the queue
		dropped uint64
		last    bool // of puts is in the queue
	}{
		{"bytes: the limit fits", []item{{frames: frames(5, 10)}, {frames: frames(5, 10)}}, 10, 0, true},
		{"bytes: one more does not", []item{{frames: frames(5, 10)}, {frames: frames(5, 10)}, {frames: frames(1, 1)}}, 10, 1, false},
		{"frames: the limit fits", []item{{frames: frames(19, 1)}, {frames: frames(1, 1)}}, 20, 0, true},
		{"frames: one more does not", []item{{frames: frames(19, 1)}, {frames: frames(2, 1)}}, 19, 2, false},
		{"an empty queue takes any batch", []item{{frames: frames(50, 50)}}, 50, 0, true},
		{"the news of a reconnection always fits", []item{{frames: frames(50, 50)}, {reconnected: true}}, 50, 0, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			q := queue{maxBytes: 100, maxFrames: 20}
			q.open()
			for _, it := range tt.puts {
				q.put(it)
			}
			if q.frames != tt.frames || q.refused() != tt.dropped {
				t.Errorf("the queue holds %d frames and dropped %d, want %d and %d", q.frames, q.refused(), tt.frames, tt.dropped)
			}
			left := 0
			for _, ok := q.next(); ok; _, ok = q.next() {
				left++
			}
			if all := left == len(tt.puts); all != tt.last {
				t.Errorf("%d of %d items are in the queue", left, len(tt.puts))
			}
			if q.bytes != 0 || q.frames != 0 {
				t.Errorf("an empty queue counts %d bytes and %d frames", q.bytes, q.frames)
			}
			if q.put(item{frames: frames(20, 5)}); q.frames != 20 {
				t.Error("an empty queue takes nothing more")
			}
		})
	}
}

func TestProvider_DropsForASlowReceiverAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bus := New()
		bus.maxFrames = 10
		var log bytes.Buffer
		gate := make(chan struct{})
		slow, heard := 0, 0
		a := started(t, bus, provider.Env{})
		started(t, bus, provider.Env{
			Logger:  slog.New(slog.NewTextHandler(&log, nil)),
			Deliver: func(b provider.Batch) { <-gate; slow += len(b.Frames) },
		})
		started(t, bus, provider.Env{Deliver: func(b provider.Batch) { heard += len(b.Frames) }})
		for range 100 {
			if err := a.Send(t.Context(), frames(1, 1)); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
		}
		if heard != 100 {
			t.Errorf("the receiver that keeps up heard %d of 100", heard)
		}
		close(gate)
		synctest.Wait()
		if slow != 11 {
			t.Errorf("the receiver that stood still heard %d, want the one it held and the 10 that waited", slow)
		}
		if n := strings.Count(log.String(), "\n"); n != 1 || !strings.Contains(log.String(), "dropped=89") {
			t.Errorf("logged %d lines, want one that says 89:\n%s", n, &log)
		}
	})
}

func TestOverflow_SaysItOnceASecond(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		logger := slog.New(slog.NewTextHandler(&log, nil))
		var o overflow
		for i := range uint64(3000) {
			o.report(logger, i)
			time.Sleep(time.Millisecond)
		}
		if n := strings.Count(log.String(), "\n"); n != 3 {
			t.Errorf("3 s of overflow are %d lines:\n%s", n, &log)
		}
	})
}

// started returns a Provider that runs until the test ends.
func started(t *testing.T, bus *Bus, env provider.Env) *Provider {
	t.Helper()
	if env.Deliver == nil {
		env.Deliver = func(provider.Batch) {}
	}
	if env.Logger == nil {
		env.Logger = slog.New(slog.DiscardHandler)
	}
	p := bus.Provider()
	if err := p.Start(t.Context(), env); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Close() })
	return p
}

func TestProvider_IsStartedOnce(t *testing.T) {
	p := started(t, New(), provider.Env{})
	if err := p.Start(t.Context(), provider.Env{}); err == nil {
		t.Error("a second Start returned nil")
	}
}

func TestProvider_SaysThatItWasNotStarted(t *testing.T) {
	p := New().Provider()
	if err := p.Send(t.Context(), frames(1, 1)); err == nil || errors.Is(err, provider.ErrClosed) {
		t.Errorf("Send before Start: %v", err)
	}
}

func TestProvider_SendLooksAtItsContext(t *testing.T) {
	p := started(t, New(), provider.Env{})
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if err := p.Send(ended, frames(1, 1)); !errors.Is(err, context.Canceled) {
		t.Errorf("Send with a ctx that has ended: %v", err)
	}
}

func TestProvider_CutLosesBothWaysAndHealTells(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bus := New()
		var got []string
		a := started(t, bus, provider.Env{
			Deliver:     func(b provider.Batch) { got = append(got, fmt.Sprintf("%d frames", len(b.Frames))) },
			Reconnected: func() { got = append(got, "reconnected") },
		})
		b := started(t, bus, provider.Env{})
		stream := site.NewStreamID(1, 1)
		a.SetMembers(provider.Members{Self: stream})

		a.Heal()
		synctest.Wait()
		if len(got) != 0 {
			t.Errorf("Heal of a whole link: %q", got)
		}
		a.Cut()
		if err := a.Send(t.Context(), frames(1, 1)); !errors.Is(err, ErrCut) {
			t.Errorf("Send through a link that is cut: %v, want ErrCut", err)
		}
		if err := b.Send(t.Context(), frames(2, 1)); err != nil {
			t.Errorf("Send while the link of another is cut: %v", err)
		}
		if err := b.SendTo(t.Context(), stream, frames(1, 1)); !errors.Is(err, provider.ErrUnreachable) {
			t.Errorf("SendTo an instance whose link is cut: %v, want ErrUnreachable", err)
		}
		a.Heal()
		a.Heal()
		if err := b.SendTo(t.Context(), stream, frames(3, 1)); err != nil {
			t.Errorf("SendTo after Heal: %v", err)
		}
		synctest.Wait()
		if want := []string{"reconnected", "3 frames"}; fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("heard %q, want %q", got, want)
		}
	})
}

func TestProvider_CutLosesWhatWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bus := New()
		gate := make(chan struct{})
		heard := 0
		a := started(t, bus, provider.Env{Deliver: func(provider.Batch) { <-gate; heard++ }, Reconnected: func() {}})
		b := started(t, bus, provider.Env{})
		for range 10 {
			b.Send(t.Context(), frames(1, 1))
		}
		synctest.Wait()
		a.Cut()
		a.Heal()
		close(gate)
		synctest.Wait()
		if heard != 1 {
			t.Errorf("%d batches were delivered, want only the one that was under way", heard)
		}
	})
}

func TestProvider_CloseLosesWhatWaitsAndLeavesTheBus(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bus := New()
		gate := make(chan struct{})
		heard := 0
		a := started(t, bus, provider.Env{Deliver: func(provider.Batch) { <-gate; heard++ }})
		b := started(t, bus, provider.Env{})
		for range 10 {
			b.Send(t.Context(), frames(1, 1))
		}
		synctest.Wait()
		closed := make(chan struct{})
		go func() { defer close(closed); a.Close() }()
		synctest.Wait()
		close(gate)
		<-closed
		if heard != 1 {
			t.Errorf("%d batches were delivered, want only the one that was under way", heard)
		}
		if n := len(bus.receivers()); n != 1 {
			t.Errorf("%d instances are on the Bus after one of two was closed", n)
		}
	})
}

func TestProvider_WorksInABubbleWithTheBusOutside(t *testing.T) {
	bus := New()
	synctest.Test(t, func(t *testing.T) {
		heard := make(chan provider.Batch, 1)
		started(t, bus, provider.Env{Deliver: func(b provider.Batch) { heard <- b }})
		from := started(t, bus, provider.Env{})
		sent := frames(1, 5)
		if err := from.Send(context.Background(), sent); err != nil {
			t.Fatal(err)
		}
		if b := <-heard; &b.Frames[0][0] != &sent[0][0] || b.From == "" {
			t.Errorf("the frame was copied, or nobody sent it: %+v", b)
		}
	})
}
