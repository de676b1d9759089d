package kafkabus

import (
	"bytes"
	"context"
	"errors"
	"net"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/carillon-go/carillon/provider"
	"github.com/carillon-go/carillon/provider/providertest"
)

// A batch of frames costs few round trips, and every one is acknowledged by all replicas.
func TestSend_BatchGoesOutTogether(t *testing.T) {
	const frames, size = 1000, 100 // together less than batchBytes
	c := startCluster(t, 3)
	a, b := pair(t, Config{Brokers: c.ListenAddrs()}, Config{Brokers: c.ListenAddrs()})
	hears(t, a, b, "at first")
	var careless atomic.Int64
	requests := c.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Topic: testTopic, Count: -1, Observe: true, When: func(r kmsg.Request) bool {
		if r.(*kmsg.ProduceRequest).Acks != -1 {
			careless.Add(1)
		}
		return true
	}})
	batch := make([][]byte, frames)
	for i := range batch {
		batch[i] = append(newFrame("small"), make([]byte, size)...)
	}
	if err := a.Provider.Send(t.Context(), batch); err != nil {
		t.Fatal(err)
	}
	if !b.Heard(batch[frames-1], patience) {
		t.Error("the last is not heard")
	}
	if heard := b.Frames(); !slices.EqualFunc(heard[len(heard)-frames:], batch, bytes.Equal) {
		t.Error("they came in another order, or not all of them")
	}
	if n := requests.Hits(); n != 1 {
		t.Errorf("%d frames took %d requests", frames, n)
	}
	if n := careless.Load(); n > 0 {
		t.Errorf("%d requests did not ask for acknowledgements of all replicas", n)
	}
}

// More than is buffered at once goes out all the same, if it is handed over at once.
func TestSend_LargerThanTheBuffer(t *testing.T) {
	c := startCluster(t, 1)
	p := newTest(t, Config{Brokers: c.ListenAddrs()})
	p.cfg.sendWithin = patience // how fast it goes is another matter
	a, b := providertest.Start(t, p), providertest.Start(t, newTest(t, Config{Brokers: c.ListenAddrs()}))
	providertest.Introduce(a, b)
	many := make([][]byte, bufferedFrames+10)
	for i := range many {
		many[i] = newFrame("one of many")
	}
	large := make([][]byte, bufferedBytes/defaultFrameBytes+10)
	for i := range large {
		large[i] = append(newFrame("a large one"), make([]byte, defaultFrameBytes-100)...)
	}
	for _, batch := range [][][]byte{many, large} {
		if err := a.Provider.Send(t.Context(), batch); err != nil {
			t.Fatal(err)
		}
		if !b.Heard(batch[len(batch)-1], patience) {
			t.Error("the last is not heard")
		}
	}
	if n := len(b.Frames()); n != len(many)+len(large) {
		t.Errorf("heard %d frames, want %d", n, len(many)+len(large))
	}
}

// What the brokers say to what is written, and what Send makes of it.
func TestSend_SaysWhyItWasNotTaken(t *testing.T) {
	for _, tt := range []struct {
		name string
		err  *kerr.Error
		want string
	}{
		{"too few replicas in sync", kerr.NotEnoughReplicas, "min.insync.replicas"},
		{"the disk is full", kerr.KafkaStorageError, "room on the brokers' disks"},
		{"the topic takes less than it did", kerr.MessageTooLarge, "max.message.bytes"},
		{"a policy", kerr.PolicyViolation, "POLICY_VIOLATION"},
		{"the right was taken away", kerr.TopicAuthorizationFailed, "allow Describe, Read and Write"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := startCluster(t, 1)
			p := newTest(t, Config{Brokers: c.ListenAddrs()})
			p.cfg.sendWithin = 700 * time.Millisecond
			a, b := providertest.Start(t, p), providertest.Start(t, newTest(t, Config{Brokers: c.ListenAddrs()}))
			providertest.Introduce(a, b)
			hears(t, a, b, "at first")
			fault := c.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Topic: testTopic, Err: tt.err, Count: -1})
			err := p.Send(t.Context(), [][]byte{newFrame("refused")})
			if err == nil || !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "\n") {
				t.Errorf("Send: %v; want one line with %q", err, tt.want)
			}
			if errors.Is(err, provider.ErrFrameTooLarge) || errors.Is(err, provider.ErrClosed) || errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("Send: %v, which is another matter", err)
			}
			fault.Remove()
			hears(t, a, b, "afterwards")
		})
	}
}

// The acknowledgement is lost, and franz-go writes the same again: the brokers notice.
func TestSend_LostAcknowledgementDoublesNothing(t *testing.T) {
	c := startCluster(t, 1)
	a, b := pair(t, Config{Brokers: c.ListenAddrs()}, Config{Brokers: c.ListenAddrs()})
	hears(t, a, b, "at first")
	for _, err := range []*kerr.Error{kerr.RequestTimedOut, kerr.NotEnoughReplicasAfterAppend} {
		fault := c.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Topic: testTopic, Err: err, Count: 1})
		frame, next := newFrame("taken"), newFrame("next")
		for _, f := range [][]byte{frame, next} {
			if err := a.Provider.Send(t.Context(), [][]byte{f}); err != nil {
				t.Fatal(err)
			}
		}
		if !b.Heard(next, patience) || count(b, frame) != 1 {
			t.Errorf("%v: heard %d times", err, count(b, frame))
		}
		if fault.Hits() == 0 {
			t.Error("the fault did not come up")
		}
	}
}

// Brokers that do not answer hold Send up for as long as its ctx wants, or until Close, and in any case not for ever.
func TestSend_WaitsForTheBrokersNoLongerThanItsContext(t *testing.T) {
	c := startCluster(t, 1)
	r := providertest.NewRelay(t, c.ListenAddrs()[0])
	a, b := pair(t, Config{Brokers: c.ListenAddrs(), Options: through(r)}, Config{Brokers: c.ListenAddrs()})
	hears(t, a, b, "at first")
	r.Hold()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := a.Provider.Send(ctx, [][]byte{newFrame("with a deadline")}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Send with a deadline: %v; want context.DeadlineExceeded", err)
	}
	sending := make(chan error, 1)
	go func() { sending <- a.Provider.Send(context.Background(), [][]byte{newFrame("without one")}) }()
	a.Close()
	if err := <-sending; !errors.Is(err, provider.ErrClosed) {
		t.Errorf("Send while Close is called: %v; want ErrClosed", err)
	}
}

// The leader is now a broker that this instance cannot reach, under the name that it gives itself.
func TestSend_SaysWhichBrokerItCannotReach(t *testing.T) {
	c := startCluster(t, 2)
	seed := c.ListenAddrs()[0]
	dialer := kgo.Dialer(func(ctx context.Context, network, host string) (net.Conn, error) {
		if host != seed {
			host = "127.0.0.1:1"
		}
		return (&net.Dialer{}).DialContext(ctx, network, host)
	})
	if err := c.CreateTopic(testTopic, 1, nil); err != nil {
		t.Fatal(err)
	}
	if err := c.MoveTopicPartition(testTopic, 0, 0); err != nil {
		t.Fatal(err)
	}
	p := newTest(t, Config{Brokers: []string{seed}, Options: []kgo.Opt{dialer}})
	p.cfg.sendWithin = 500 * time.Millisecond
	e := providertest.Start(t, p)
	if err := c.MoveTopicPartition(testTopic, 0, 1); err != nil {
		t.Fatal(err)
	}
	t.Log(refused(t, e, "advertised.listeners"))
	other := providertest.NewEndpoint(t, newTest(t, Config{Brokers: []string{seed}, Options: []kgo.Opt{dialer}}), provider.Env{})
	defer other.Close()
	if err := other.Start(t.Context()); err == nil || !strings.Contains(err.Error(), "advertised.listeners") {
		t.Errorf("Start: %v; want it to name advertised.listeners", err)
	}
	if err := c.MoveTopicPartition(testTopic, 0, 0); err != nil {
		t.Fatal(err)
	}
	eventually(t, "Send succeeds again", func() bool { return p.Send(t.Context(), [][]byte{newFrame("again")}) == nil })
}

// A broker that takes what is written, and never answers.
func TestSend_GivesUpByItself(t *testing.T) {
	c := startCluster(t, 1)
	r := providertest.NewRelay(t, c.ListenAddrs()[0])
	p := newTest(t, Config{Brokers: c.ListenAddrs(), Options: through(r)})
	p.cfg.sendWithin, p.cfg.lookEvery, p.cfg.lookWithin = 300*time.Millisecond, time.Hour, time.Hour
	a, b := providertest.Start(t, p), providertest.Start(t, newTest(t, Config{Brokers: c.ListenAddrs()}))
	providertest.Introduce(a, b)
	hears(t, a, b, "at first")
	r.Hold()
	given := newFrame("given up")
	sending := make(chan error, 1)
	go func() { sending <- p.Send(context.Background(), [][]byte{given}) }()
	late := time.NewTimer(patience)
	defer late.Stop()
	select {
	case err := <-sending:
		if !errors.Is(err, errNoAnswer) {
			t.Errorf("Send: %v; want errNoAnswer", err)
		}
	case <-late.C:
		t.Fatal("Send waits for ever")
	}
	// It was on its way and gets lost. Nobody sends it later but the Broker.
	r.Cut()
	r.Release()
	r.Heal()
	hearsAgain(t, a, b, "afterwards")
	if n := count(b, given); n > 0 {
		t.Errorf("what Send gave up was kept and sent later, %d times", n)
	}
}

// While brokers are away Send says so, and keeps nothing for later.
func TestSend_FailsWhileTheBrokersAreAway(t *testing.T) {
	s := startServer(t)
	p, q := newTest(t, Config{Brokers: []string{s.address}}), newTest(t, Config{Brokers: []string{s.address}})
	p.cfg.lookEvery, q.cfg.lookEvery = time.Hour, time.Hour // they notice by themselves
	a, b := providertest.Start(t, p), providertest.Start(t, q)
	providertest.Introduce(a, b)
	hears(t, a, b, "at first")
	s.kill()
	lost := newFrame("while they are away")
	var err error
	eventually(t, "Send says that nobody is there", func() bool {
		err = a.Provider.Send(t.Context(), [][]byte{lost})
		return err != nil && strings.Contains(err.Error(), "is it running")
	})
	eventually(t, "both have noticed", func() bool {
		_, one := p.keeper.Link()
		_, other := q.keeper.Link()
		return !one && !other
	})
	s.start()
	hearsAgain(t, a, b, "afterwards")
	hearsAgain(t, b, a, "and back")
	if n := count(b, lost); n > 0 {
		t.Errorf("what Send refused was kept and sent later, %d times", n)
	}
	if a.Reconnects() == 0 || b.Reconnects() == 0 {
		t.Error("Reconnected was not called")
	}
}
