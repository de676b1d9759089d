package rabbitbus

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/carillon-go/carillon/provider"
	"github.com/carillon-go/carillon/provider/providertest"
	"github.com/carillon-go/carillon/site"
)

// What is sent while an instance is cut off for a moment waits in its queue. What it sent itself right before does too, and is still its own.
func TestQueue_KeepsWhatIsSentDuringACut(t *testing.T) {
	s := theBroker(t)
	ways, a, b := pair(t, s, Config{})
	hears(t, a, b, "at first")
	queue := queueOf(b)

	gate := make(chan struct{}) // what b sent stays unacknowledged
	b.OnBatch(func(provider.Batch) { <-gate })
	taken := []byte("not acknowledged")
	if err := a.Provider.Send(t.Context(), [][]byte{taken}); err != nil {
		t.Fatal(err)
	}
	if !b.Heard(taken, patience) {
		t.Fatal("nothing is heard")
	}
	own := []byte("by itself")
	if err := b.Provider.Send(t.Context(), [][]byte{own}); err != nil {
		t.Fatal(err)
	}
	ways[1].Cut()
	waiting := []byte("during the cut")
	if err := a.Provider.Send(t.Context(), [][]byte{waiting}); err != nil {
		t.Fatal(err)
	}
	b.OnBatch(nil)
	close(gate)
	ways[1].Heal()
	if !eventually(func() bool { return b.Reconnects() > 0 }) {
		t.Fatal("Reconnected was not called")
	}
	if now := queueOf(b); now != queue {
		t.Fatalf("its queue was %q and is %q", queue, now)
	}
	if !b.Heard(waiting, patience) {
		t.Error("what was sent during the cut did not wait")
	}
	if b.Heard(own, 0) {
		t.Error("it heard what it had sent itself, before the cut")
	}
	n := 0
	for _, f := range b.Frames() {
		if bytes.Equal(f, taken) {
			n++
		}
	}
	if n != 2 {
		t.Errorf("what was not acknowledged when the connection broke was heard %d times, want 2", n)
	}
}

// The queue goes with Close. When an instance dies it goes after a while by itself; that of one which lives, and takes nothing, stays.
func TestQueue_GoesWithItsInstance(t *testing.T) {
	s := theBroker(t)
	ways, slow, dead := pair(t, s, Config{QueueExpiry: minExpiry})
	closed := providertest.Start(t, newTest(t, Config{URLs: []string{s.url()}, Prefix: slow.Provider.(*Provider).cfg.Prefix}))
	ofSlow, ofDead, ofClosed := queueOf(slow), queueOf(dead), queueOf(closed)
	for _, queue := range []string{ofSlow, ofDead, ofClosed} {
		if !s.has(t, queue) {
			t.Fatalf("there is no queue %q", queue)
		}
	}
	closed.Close()
	if s.has(t, ofClosed) {
		t.Error("its queue is there after Close")
	}
	gate := make(chan struct{})
	defer close(gate)
	slow.OnBatch(func(provider.Batch) { <-gate })
	if err := dead.Provider.Send(t.Context(), [][]byte{[]byte("it stands still with this")}); err != nil {
		t.Fatal(err)
	}
	ways[1].Cut() // for ever, as far as the server can see
	if !eventually(func() bool { return !s.has(t, ofDead) }) {
		t.Error("the queue of an instance that is gone stays")
	}
	if !s.has(t, ofSlow) {
		t.Error("the queue of an instance that is only slow is gone")
	}
}

// What the Broker is done with is acknowledged.
func TestQueue_IsEmptyWhenAllIsDone(t *testing.T) {
	s := theBroker(t)
	_, a, b := pair(t, s, Config{})
	for i := range 10 {
		hears(t, a, b, fmt.Sprint("number ", i))
	}
	queue := queueOf(b)
	if !eventually(func() bool { return strings.Contains(s.control(t, "list_queues", "name", "messages"), queue+"\t0\n") }) {
		t.Errorf("something is not acknowledged: %s", s.control(t, "list_queues", "name", "messages", "messages_unacknowledged"))
	}
}

// A queue that is full loses what is oldest, and whoever is there again is told and hears the rest.
func TestQueue_DropsTheOldestWhenItIsFull(t *testing.T) {
	const size, frames = 8 << 10, 1000
	s := theBroker(t)
	ways, a, b := pair(t, s, Config{QueueBytes: minQueueBytes})
	hears(t, a, b, "at first")
	queue := queueOf(b)
	ways[1].Cut()
	frame := func(i int) []byte { return append(fmt.Appendf(nil, "%9d", i), make([]byte, size-9)...) }
	for i := 0; i < frames; i += 50 {
		var batch [][]byte
		for k := range 50 {
			batch = append(batch, frame(i+k))
		}
		if err := a.Provider.Send(t.Context(), batch); err != nil {
			t.Fatal(err)
		}
	}
	q, err := s.channel(t).QueueDeclarePassive(queue, true, false, false, false, nil)
	if most := minQueueBytes / size; err != nil || q.Messages > most || q.Messages < most-1 {
		t.Errorf("the queue holds %d messages of %d bytes (%v); want %d", q.Messages, size, err, most)
	}
	ways[1].Heal()
	if !b.Heard(frame(frames-1), patience) {
		t.Error("the newest is not there")
	}
	if b.Heard(frame(0), 0) {
		t.Error("the oldest is there too")
	}
	if !eventually(func() bool { return b.Reconnects() > 0 }) {
		t.Error("Reconnected was not called")
	}
}

// An instance whose queue was deleted makes it again.
func TestQueue_IsMadeAgain(t *testing.T) {
	s := theBroker(t)
	_, a, b := pair(t, s, Config{})
	hears(t, a, b, "at first")
	if _, err := s.channel(t).QueueDelete(queueOf(b), false, false, false); err != nil {
		t.Fatal(err)
	}
	hears(t, a, b, "afterwards")
	if !eventually(func() bool { return b.Reconnects() > 0 }) {
		t.Error("Reconnected was not called")
	}
}

// An instance whose queue another connection has, as a copy of its process may, takes another one.
func TestQueue_IsLeftToWhoHasIt(t *testing.T) {
	s := theBroker(t)
	ways, a, b := pair(t, s, Config{})
	hears(t, a, b, "at first")
	queue := queueOf(b)
	take := func() error {
		_, err := s.channel(t).Consume(queue, "", false, false, false, false, nil)
		return err
	}
	if err := take(); !isInUse(err) {
		t.Errorf("another connection takes from a queue that is in use: %v", err)
	}
	ways[1].Cut()
	if !eventually(func() bool { return take() == nil }) { // when the server has noticed that b is gone
		t.Fatal("nobody can take the queue")
	}
	ways[1].Heal()
	hears(t, a, b, "with another queue")
	if now := queueOf(b); now == queue {
		t.Errorf("both have %q", now)
	}
}

// A queue that cannot take a frame, as when it has crashed or its node of a cluster is down, is one instance's trouble. The server then says no to who sent it.
func TestSend_DoesNotFailForOneQueue(t *testing.T) {
	s := theBroker(t)
	ways, a, b := pair(t, s, Config{})
	hears(t, a, b, "at first")
	c := providertest.Start(t, newTest(t, Config{URLs: []string{s.url()}, Prefix: a.Provider.(*Provider).cfg.Prefix}))
	queue := queueOf(b)
	ways[1].Cut()
	// More often than its supervisor starts it again.
	s.control(t, "eval", `
		Name = rabbit_misc:r(<<"/">>, queue, <<"`+queue+`">>),
		[case rabbit_amqqueue:lookup(Name) of {ok, Q} -> exit(amqqueue:get_pid(Q), kill), timer:sleep(20); _ -> ok end || _ <- lists:seq(1, 12)].`)
	for i := range 3 {
		f := fmt.Appendf(nil, "while a queue is broken, %d", i)
		if err := a.Provider.Send(t.Context(), [][]byte{f}); err != nil {
			t.Errorf("Send: %v", err)
		}
		if !c.Heard(f, patience) {
			t.Error("those whose queues are whole do not hear it")
		}
	}
}

// Who sends to a stream that an instance has given up hears that nobody has it.
func TestSendTo_AnEarlierStream(t *testing.T) {
	s := theBroker(t)
	_, a, b := pair(t, s, Config{})
	earlier := b.Stream()
	send := func() error {
		return a.Provider.(provider.Unicaster).SendTo(t.Context(), earlier, [][]byte{[]byte("to an earlier stream")})
	}
	if !eventually(func() bool { return send() == nil }) {
		t.Fatal("it cannot be reached")
	}
	b.Provider.(*Provider).SetMembers(provider.Members{Self: a.Stream()}) // any other
	if !eventually(func() bool { return errors.Is(send(), provider.ErrUnreachable) }) {
		t.Error("the earlier stream can still be reached")
	}
}

// Instances of another site are heard, and can be answered, when they are among those accepted or have turned up.
func TestSites_HearEachOther(t *testing.T) {
	s := theBroker(t)
	cfg := Config{URLs: []string{s.url()}, Prefix: newPrefix()}
	sites := []site.ID{site.ID([]byte("the first site..")), site.ID([]byte("the second one.."))}
	var ends []*providertest.Endpoint
	for i := range 2 {
		e := providertest.NewEndpoint(t, newTest(t, cfg), provider.Env{Site: sites[i], Sites: sites[:i+1]})
		if err := e.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { e.Close() })
		ends = append(ends, e)
	}
	hears(t, ends[0], ends[1], "by one that accepts it")
	providertest.Introduce(ends...)
	hears(t, ends[1], ends[0], "by one that has been told of it")
	for i, e := range ends {
		answer := fmt.Appendf(nil, "answer %d", i)
		if !eventually(func() bool {
			return e.Provider.(provider.Unicaster).SendTo(t.Context(), ends[1-i].Stream(), [][]byte{answer}) == nil
		}) || !ends[1-i].Heard(answer, patience) {
			t.Errorf("instance %d does not reach the one of the other site alone", i)
		}
	}
}

// What strangers send is no frame, or not ours to judge; an empty one is nothing.
func TestReceive_IgnoresWhatIsNoFrame(t *testing.T) {
	s := theBroker(t)
	_, a, b := pair(t, s, Config{})
	hears(t, a, b, "at first")
	before := len(b.Frames())
	ch := s.channel(t)
	exchange := b.Provider.(*Provider).exchange(b.Env().Site)
	for _, m := range []amqp.Publishing{
		{}, {Body: make([]byte, maxFrameBytes+1)},
		{Body: []byte("from a stranger"), AppId: string(bytes.Repeat([]byte{0xff}, 255)), Headers: amqp.Table{"a": amqp.Table{"b": int32(1)}}, Timestamp: time.Now()},
	} {
		if err := ch.PublishWithContext(t.Context(), exchange, keyAll, false, false, m); err != nil {
			t.Fatal(err)
		}
	}
	if !b.Heard([]byte("from a stranger"), patience) {
		t.Error("what may be a frame was not delivered")
	}
	if n := len(b.Frames()) - before; n != 1 {
		t.Errorf("%d frames were delivered, want 1", n)
	}
}

// queueOf returns the name of the queue that e has.
func queueOf(e *providertest.Endpoint) string {
	l, ok := e.Provider.(*Provider).keeper.Link()
	if !ok {
		return ""
	}
	return l.queue
}
