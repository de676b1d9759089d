package redisbus

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/carillon-go/carillon/provider"
	"github.com/carillon-go/carillon/provider/providertest"
)

// A server that takes nothing holds Send up for as long as its ctx wants, or until Close.
func TestSend_WaitsForTheServerNoLongerThanItsContext(t *testing.T) {
	s := startServer(t)
	a, b := pair(t, Config{URL: s.url()}, Config{URL: s.url()})
	hears(t, a, b, "at first", false)
	s.do("CLIENT", "PAUSE", "60000", "WRITE") // which PUBLISH counts as

	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := a.Provider.Send(ctx, [][]byte{[]byte("with a deadline")}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Send with a deadline: %v; want context.DeadlineExceeded", err)
	}
	sending := make(chan error, 1)
	go func() { sending <- b.Provider.Send(context.Background(), [][]byte{[]byte("without one")}) }()
	b.Close()
	if err := <-sending; !errors.Is(err, provider.ErrClosed) {
		t.Errorf("Send while Close is called: %v; want ErrClosed", err)
	}

	s.do("CLIENT", "UNPAUSE")
	c := providertest.Start(t, newTest(t, Config{URL: s.url()}))
	hears(t, a, c, "afterwards", false)
}

// While the server is away Send says so at once, and keeps nothing for later.
func TestSend_FailsWhileTheServerIsAway(t *testing.T) {
	s := startServer(t)
	a, b := pair(t, Config{URL: s.url()}, Config{URL: s.url()})
	hears(t, a, b, "at first", false)
	s.kill()
	lost := []byte("while it is away")
	var err error
	if !eventually(func() bool {
		err = a.Provider.Send(t.Context(), [][]byte{lost})
		return err != nil && strings.Contains(err.Error(), "nobody listens there")
	}) {
		t.Errorf("Send while the server is away: %v", err)
	}
	s.start()
	hears(t, a, b, "afterwards", true)
	if b.Heard(lost, 0) {
		t.Error("what Send refused was kept and sent later")
	}
	if b.Reconnects() == 0 {
		t.Error("Reconnected was not called")
	}
}

// The older form of the protocol, where a subscribed connection carries nothing else.
func TestURL_OlderProtocol(t *testing.T) {
	s := startServer(t)
	a, b := pair(t, Config{URL: s.url() + "?protocol=2"}, Config{URL: s.url()})
	hears(t, a, b, "from the older to the newer", false)
	hears(t, b, a, "and back", false)
	s.restart()
	hears(t, a, b, "after a restart", true)
	hears(t, b, a, "and back after it", true)
	if a.Reconnects() == 0 {
		t.Error("Reconnected was not called")
	}
}

// What a Send has given up may still be on its way, and must not be changed by the next.
func TestSend_LeavesAloneWhatIsStillOnItsWay(t *testing.T) {
	const (
		batches = 12
		size    = 30_000
		each    = 100 // 3 MB, so that some batch has to wait for room in the kernel
	)
	s := startServer(t, "--client-output-buffer-limit", "pubsub", "0", "0", "0")
	way := providertest.NewRelay(t, s.address)
	a, b := pair(t, Config{URL: "redis://" + way.Addr()}, Config{URL: s.url()})
	hears(t, a, b, "at first", false)
	way.Hold()
	for i := range batches {
		frames := make([][]byte, each)
		for k := range frames {
			frames[k] = bytes.Repeat([]byte{byte(i)}, size)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
		if err := a.Provider.Send(ctx, frames); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Send with a deadline: %v; want context.DeadlineExceeded", err)
		}
		cancel()
	}
	way.Release()
	hears(t, a, b, "afterwards", false)
	var heard [batches]int
	for _, f := range b.Frames() {
		if len(f) != size {
			continue
		}
		if !bytes.Equal(f, bytes.Repeat(f[:1], size)) || int(f[0]) >= batches {
			t.Fatal("a frame that nobody sent")
		}
		heard[f[0]]++
	}
	for i, n := range heard {
		if n > each {
			t.Errorf("%d frames of batch %d, which has %d", n, i, each)
		}
	}
	t.Logf("heard of each batch of %d: %v", each, heard)
}
