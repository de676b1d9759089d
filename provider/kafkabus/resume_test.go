package kafkabus

import (
	"bytes"
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

// cutOff starts two instances, the second behind a relay that is cut, and returns when it has tried several times in vain to get back.
func cutOff(t *testing.T, c *kfake.Cluster) (a, b *providertest.Endpoint, r *providertest.Relay) {
	t.Helper()
	r = providertest.NewRelay(t, c.ListenAddrs()[0])
	a, b = pair(t, Config{Brokers: c.ListenAddrs()}, Config{Brokers: c.ListenAddrs(), Options: through(r)})
	hears(t, a, b, "at first")
	r.Cut()
	seen := make(map[error]bool)
	eventually(t, "it has tried three times", func() bool {
		err := b.Provider.Send(t.Context(), [][]byte{newFrame("lost")})
		if _, ok := b.Provider.(*Provider).keeper.Link(); err != nil && !ok {
			seen[err] = true
		}
		return len(seen) >= 4
	})
	return a, b, r
}

// Whatever was sent while an instance was away is there when it is back, once and in order.
func TestOutage_NothingIsLost(t *testing.T) {
	c := startCluster(t, 1)
	a, b, r := cutOff(t, c)
	var frames [][]byte
	for range 200 {
		frames = append(frames, newFrame("while it is away"))
	}
	for some := range slices.Chunk(frames, 20) {
		if err := a.Provider.Send(t.Context(), some); err != nil {
			t.Fatal(err)
		}
	}
	r.Heal()
	last := newFrame("the last")
	if err := a.Provider.Send(t.Context(), [][]byte{last}); err != nil {
		t.Fatal(err)
	}
	if !b.Heard(last, patience) {
		t.Fatal("it does not come back")
	}
	heard := b.Frames()
	if n := len(heard); n != len(frames)+2 || !slices.EqualFunc(heard[1:n-1], frames, bytes.Equal) { // the first was heard before, and shall not come again
		t.Errorf("of %d frames it heard %d, or in another order", len(frames)+2, n)
	}
	if b.Reconnects() == 0 {
		t.Error("Reconnected was not called")
	}
	hearsAgain(t, b, a, "and back")
}

// What was deleted meanwhile is lost: it goes on at the earliest there is, and says so.
func TestOutage_LongerThanTheRetention(t *testing.T) {
	c := startCluster(t, 1)
	a, b, r := cutOff(t, c)
	lost, kept := newFrame("deleted"), newFrame("kept")
	for _, f := range [][]byte{lost, kept} {
		if err := a.Provider.Send(t.Context(), [][]byte{f}); err != nil {
			t.Fatal(err)
		}
	}
	if err := c.DeleteRecords(testTopic, 0, c.PartitionInfo(testTopic, 0).HighWatermark-1); err != nil {
		t.Fatal(err)
	}
	r.Heal()
	if !b.Heard(kept, patience) {
		t.Error("what was kept is not heard")
	}
	if count(b, kept) != 1 || count(b, lost) != 0 {
		t.Errorf("heard %d times, and what was deleted %d times", count(b, kept), count(b, lost))
	}
	eventually(t, "Reconnected is called", func() bool { return b.Reconnects() > 0 })
	hears(t, a, b, "afterwards")
}

// An instance that stands still for longer than the retention, while its connection is well.
func TestReceive_StandsStillForLongerThanTheRetention(t *testing.T) {
	c := startCluster(t, 1)
	a, b := pair(t, Config{Brokers: c.ListenAddrs()}, Config{Brokers: c.ListenAddrs()})
	hears(t, a, b, "at first")
	entered, gate := make(chan bool, 100), make(chan bool)
	b.OnBatch(func(batch provider.Batch) {
		entered <- true
		<-gate
	})
	for range 40 { // more than what is fetched before anybody asks for it
		if err := a.Provider.Send(t.Context(), [][]byte{bytes.Repeat([]byte{1}, 30_000)}); err != nil {
			t.Fatal(err)
		}
	}
	<-entered
	big := make([][]byte, 300)
	for i := range big {
		big[i] = bytes.Repeat([]byte{byte(i)}, 30_000)
	}
	if err := a.Provider.Send(t.Context(), big); err != nil {
		t.Fatal(err)
	}
	if err := c.DeleteRecords(testTopic, 0, -1); err != nil {
		t.Fatal(err)
	}
	close(gate)
	eventually(t, "Reconnected is called", func() bool { return b.Reconnects() > 0 })
	b.OnBatch(nil)
	hearsAgain(t, a, b, "afterwards")
}

// A leader moves: nothing is lost, nothing comes twice, and nobody is told of anything.
func TestProvider_FollowsTheLeader(t *testing.T) {
	c := startCluster(t, 3)
	a, b := pair(t, Config{Brokers: c.ListenAddrs()[:1]}, Config{Brokers: c.ListenAddrs()[:1]})
	hears(t, a, b, "at first")
	var frames [][]byte
	for i := range 60 {
		if i%20 == 10 {
			if err := c.MoveTopicPartition(testTopic, 0, (c.LeaderFor(testTopic, 0)+1)%3); err != nil {
				t.Fatal(err)
			}
		}
		f := newFrame("while leaders move")
		frames = append(frames, f)
		if err := a.Provider.Send(t.Context(), [][]byte{f}); err != nil {
			t.Fatal(err)
		}
	}
	if !b.Heard(frames[len(frames)-1], patience) {
		t.Fatal("the last is not heard")
	}
	heard := b.Frames()
	if n := len(heard); !slices.EqualFunc(heard[max(0, n-len(frames)):], frames, bytes.Equal) {
		t.Errorf("of %d frames it heard %d, or in another order", len(frames), n-1)
	}
	if n := a.Reconnects() + b.Reconnects(); n > 0 {
		t.Errorf("Reconnected was called %d times", n)
	}
}

// What the brokers say of their reading, and what follows.
func TestReceive_OutlivesErrorsOfABroker(t *testing.T) {
	for _, tt := range []struct {
		name string
		err  *kerr.Error
		told bool // that frames may be lost
	}{
		{"the disk", kerr.KafkaStorageError, false},
		{"the leader moves", kerr.NotLeaderForPartition, false},
		{"out of range", kerr.OffsetOutOfRange, true},
		{"something unknown", kerr.UnknownServerError, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := startCluster(t, 1)
			a, b := pair(t, Config{Brokers: c.ListenAddrs()}, Config{Brokers: c.ListenAddrs()})
			hears(t, a, b, "at first")
			fault := c.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Fetch}, Topic: testTopic, Err: tt.err, Count: 1})
			hearsAgain(t, a, b, "in between")
			eventually(t, "the fault comes up", func() bool { hearsAgain(t, a, b, "again"); return fault.Hits() > 0 })
			hearsAgain(t, a, b, "afterwards")
			if tt.told {
				eventually(t, "Reconnected is called", func() bool { return a.Reconnects()+b.Reconnects() > 0 })
			} else if n := a.Reconnects() + b.Reconnects(); n > 0 {
				t.Errorf("Reconnected was called %d times", n)
			}
		})
	}
}

// Strangers who may write to the topic do not make anybody unpack what they packed. A few bytes may become very many.
func TestReceive_SkipsWhatIsCompressed(t *testing.T) {
	c := startCluster(t, 1)
	a, b := pair(t, Config{Brokers: c.ListenAddrs()}, Config{Brokers: c.ListenAddrs()})
	hears(t, a, b, "at first")
	for name, codec := range map[string]kgo.CompressionCodec{
		"gzip": kgo.GzipCompression(), "snappy": kgo.SnappyCompression(), "lz4": kgo.Lz4Compression(), "zstd": kgo.ZstdCompression(),
	} {
		cl := stranger(t, c.ListenAddrs(), kgo.ProducerBatchCompression(codec))
		packed := newFrame(name + strings.Repeat(" and again", 100))
		if err := cl.ProduceSync(t.Context(), newRecord(testTopic, nil, &tag{9}, packed)).FirstErr(); err != nil {
			t.Fatal(err)
		}
		hears(t, a, b, "after "+name)
		if count(b, packed) > 0 {
			t.Errorf("what was packed with %s was unpacked", name)
		}
	}
	if n := a.Reconnects() + b.Reconnects(); n > 0 {
		t.Errorf("Reconnected was called %d times", n)
	}
}

// A place in the log that cannot be read does not stop anybody for ever.
func TestReceive_GoesOnBehindWhatCannotBeRead(t *testing.T) {
	c := startCluster(t, 1)
	a, b := pair(t, Config{Brokers: c.ListenAddrs()}, Config{Brokers: c.ListenAddrs()})
	hears(t, a, b, "at first")
	bad := c.PartitionInfo(testTopic, 0).HighWatermark
	c.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Fetch}, Topic: testTopic, Err: kerr.UnknownServerError, Count: -1, When: func(r kmsg.Request) bool {
		for _, t := range r.(*kmsg.FetchRequest).Topics {
			for _, p := range t.Partitions {
				if p.FetchOffset == bad {
					return true
				}
			}
		}
		return false
	}})
	hearsAgain(t, a, b, "afterwards")
	hearsAgain(t, b, a, "and back")
	eventually(t, "Reconnected is called", func() bool { return b.Reconnects() > 0 })
}

// One of several brokers stops answering, and leads nothing: another is asked, and nobody is told of anything.
func TestWatch_AsksAnotherBroker(t *testing.T) {
	c := startCluster(t, 3)
	p := newTest(t, Config{Brokers: c.ListenAddrs()})
	p.cfg.lookWithin, p.cfg.lookEvery = 500*time.Millisecond, 10*time.Millisecond
	a, b := providertest.Start(t, p), providertest.Start(t, newTest(t, Config{Brokers: c.ListenAddrs()}))
	providertest.Introduce(a, b)
	hears(t, a, b, "at first")
	dumb := (c.LeaderFor(testTopic, 0) + 1) % 3
	var swallowed, answered atomic.Int32 // answered since
	c.ControlKey(int16(kmsg.Metadata), func(kmsg.Request) (kmsg.Response, error, bool) {
		c.KeepControl()
		if c.CurrentNode() == dumb {
			swallowed.Add(1)
			return nil, nil, true
		}
		if swallowed.Load() > 0 {
			answered.Add(1)
		}
		return nil, nil, false
	})
	eventually(t, "others are asked as well", func() bool { return answered.Load() >= 8 })
	hears(t, a, b, "meanwhile")
	hears(t, b, a, "and back")
	if n := a.Reconnects(); n > 0 {
		t.Errorf("Reconnected was called %d times", n)
	}
}

// A network that drops everything without a word.
func TestWatch_GivesUpASilentNetwork(t *testing.T) {
	c := startCluster(t, 1)
	r := providertest.NewRelay(t, c.ListenAddrs()[0])
	p := newTest(t, Config{Brokers: c.ListenAddrs(), Options: through(r)})
	p.cfg.sendWithin, p.cfg.lookWithin, p.cfg.lookEvery = time.Hour, 200*time.Millisecond, 100*time.Millisecond
	a := providertest.Start(t, newTest(t, Config{Brokers: c.ListenAddrs()}))
	b := providertest.Start(t, p)
	providertest.Introduce(a, b)
	hears(t, a, b, "at first")
	r.Hold()
	// Whoever is sending hears why it did not succeed.
	if err := p.Send(t.Context(), [][]byte{newFrame("lost")}); err == nil || !strings.Contains(err.Error(), "ask for topics") {
		t.Errorf("Send: %v; want what ended the link", err)
	}
	eventually(t, "there is no link", func() bool { _, ok := p.keeper.Link(); return !ok })
	if err := p.Send(t.Context(), [][]byte{newFrame("lost")}); err == nil {
		t.Error("Send returned nil")
	}
	lost := newFrame("while nothing passes")
	if err := a.Provider.Send(t.Context(), [][]byte{lost}); err != nil {
		t.Fatal(err)
	}
	r.Release()
	if !b.Heard(lost, patience) {
		t.Error("what was sent meanwhile is not heard")
	}
	if count(b, lost) != 1 {
		t.Errorf("it was heard %d times", count(b, lost))
	}
	eventually(t, "Reconnected is called", func() bool { return b.Reconnects() > 0 })
	hearsAgain(t, b, a, "and back")
}
