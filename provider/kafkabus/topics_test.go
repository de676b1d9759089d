package kafkabus

import (
	"context"
	"encoding/binary"
	"hash/crc32"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/carillon-go/carillon/provider"
	"github.com/carillon-go/carillon/provider/providertest"
	"github.com/carillon-go/carillon/site"
)

// testTopic is the topic of the site that endpoints have unless they say otherwise.
var testTopic = "carillon-" + site.ID([]byte("carillon testing")).String()

func TestStart_MakesTheTopic(t *testing.T) {
	c := startCluster(t, 3)
	providertest.Start(t, newTest(t, Config{Brokers: c.ListenAddrs(), Partitions: 4, Replicas: 2, Retention: 5 * time.Minute}))
	info := c.TopicInfo(testTopic)
	if info == nil {
		t.Fatal("there is none")
	}
	if n := len(c.PartitionInfos(testTopic)); n != 4 || info.NumReplicas != 2 {
		t.Errorf("%d partitions and %d replicas, want 4 and 2", n, info.NumReplicas)
	}
	for key, want := range map[string]string{"cleanup.policy": "delete", "compression.type": "uncompressed", "retention.ms": "300000", "segment.ms": "60000", "max.message.bytes": "1048576"} {
		if got := info.Configs[key]; got == nil || *got != want {
			t.Errorf("%s is %v, want %s", key, got, want)
		}
	}

	// The second finds it and changes nothing.
	providertest.Start(t, newTest(t, Config{Brokers: c.ListenAddrs(), Partitions: 9, Retention: time.Hour}))
	if again := c.TopicInfo(testTopic); again.TopicID != info.TopicID || *again.Configs["retention.ms"] != "300000" || len(c.PartitionInfos(testTopic)) != 4 {
		t.Error("the topic is another, or was changed")
	}
}

func TestStart_AsksForAPartitionPerDefaultOfTheBrokers(t *testing.T) {
	c := startCluster(t, 1, kfake.DefaultNumPartitions(7))
	providertest.Start(t, newTest(t, Config{Brokers: c.ListenAddrs()}))
	if n := len(c.PartitionInfos(testTopic)); n != 7 {
		t.Errorf("%d partitions, want the brokers' 7", n)
	}
}

func TestStart_RefusesATopicThatDoesNotFit(t *testing.T) {
	for _, tt := range []struct {
		name    string
		configs map[string]string
		cfg     Config
		want    string
	}{
		{"it forgets all but the last of each key", map[string]string{"cleanup.policy": "compact"}, Config{}, "cleanup.policy=compact"},
		{"and deletes as well", map[string]string{"cleanup.policy": "compact,delete"}, Config{}, "set it to delete"},
		{"the brokers compress", map[string]string{"compression.type": "zstd"}, Config{}, "set its compression.type to uncompressed"},
		{"they leave it to who writes", map[string]string{"compression.type": "producer"}, Config{}, ""},
		{"it takes less than a batch", map[string]string{"max.message.bytes": "100000"}, Config{}, "takes batches of 100000 bytes (max.message.bytes), and wants to take 262144"},
		{"it takes less than a frame", map[string]string{"max.message.bytes": "500000"}, Config{MaxFrameBytes: 600_000}, "wants to take 600512"},
		{"it takes just enough", map[string]string{"max.message.bytes": "262144"}, Config{}, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := startCluster(t, 1)
			if err := c.CreateTopic(testTopic, 1, tt.configs); err != nil {
				t.Fatal(err)
			}
			tt.cfg.Brokers = c.ListenAddrs()
			e := providertest.NewEndpoint(t, newTest(t, tt.cfg), provider.Env{})
			err := e.Start(t.Context())
			switch {
			case tt.want == "" && err != nil:
				t.Error(err)
			case tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)):
				t.Errorf("Start: %v; want an error with %q", err, tt.want)
			}
		})
	}
}

// The user may not read the settings of the topic: that the brokers compress shows when the first record comes back.
func TestStart_NoticesThatTheBrokersCompress(t *testing.T) {
	c := startCluster(t, 1)
	c.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.DescribeConfigs}, Resource: testTopic, Err: kerr.TopicAuthorizationFailed, Count: -1})
	c.ControlKey(int16(kmsg.Produce), func(r kmsg.Request) (kmsg.Response, error, bool) {
		c.KeepControl()
		for _, t := range r.(*kmsg.ProduceRequest).Topics {
			for _, p := range t.Partitions {
				p.Records[22] |= 4 // attributes of the batch: zstd
				binary.BigEndian.PutUint32(p.Records[17:], crc32.Checksum(p.Records[21:], crc32.MakeTable(crc32.Castagnoli)))
			}
		}
		return nil, nil, false
	})
	e := providertest.NewEndpoint(t, newTest(t, Config{Brokers: c.ListenAddrs()}), provider.Env{})
	if err := e.Start(t.Context()); err == nil || !strings.Contains(err.Error(), "compression.type") {
		t.Errorf("Start: %v; want an error with compression.type", err)
	}
}

// What the brokers say while a topic is being made.
func TestStart_WaitsForTheTopicToBeReady(t *testing.T) {
	for _, tt := range []struct {
		name  string
		fault kfake.Fault
		want  string // in the error; empty: Start succeeds
	}{
		{"no leader yet", kfake.Fault{Keys: []kmsg.Key{kmsg.Metadata}, Err: kerr.LeaderNotAvailable, Count: 3}, ""},
		{"the broker asked is no leader any more", kfake.Fault{Keys: []kmsg.Key{kmsg.ListOffsets}, Err: kerr.NotLeaderForPartition, Count: 1}, ""},
		{"another instance was faster", kfake.Fault{Keys: []kmsg.Key{kmsg.CreateTopics}, Err: kerr.TopicAlreadyExists, Count: 1}, ""},
		{"a quota of topics made", kfake.Fault{Keys: []kmsg.Key{kmsg.CreateTopics}, Err: kerr.ThrottlingQuotaExceeded, Count: -1}, "THROTTLING_QUOTA_EXCEEDED"},
		{"a policy", kfake.Fault{Keys: []kmsg.Key{kmsg.CreateTopics}, Err: kerr.PolicyViolation, Count: -1}, "create it yourself"},
		{"too many replicas", kfake.Fault{Keys: []kmsg.Key{kmsg.CreateTopics}, Err: kerr.InvalidReplicationFactor, Count: -1}, "change Partitions and Replicas"},
		{"no right to create it", kfake.Fault{Keys: []kmsg.Key{kmsg.CreateTopics}, Err: kerr.TopicAuthorizationFailed, Count: -1}, "allow Create on topics with the prefix carillon-"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := startCluster(t, 2)
			tt.fault.Topic = testTopic
			fault := c.Fault(tt.fault)
			e := providertest.NewEndpoint(t, newTest(t, Config{Brokers: c.ListenAddrs()}), provider.Env{})
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			made := fault.Hits
			err := e.Start(ctx)
			if made() == 0 {
				t.Error("the fault did not come up")
			}
			switch {
			case tt.want == "" && err != nil:
				t.Error(err)
			case tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "\n")):
				t.Errorf("Start: %v; want one line with %q", err, tt.want)
			}
			e.Close()
		})
	}
}

// What was sent before Start has nothing to say to this instance.
func TestStart_ReadsFromTheEnd(t *testing.T) {
	c := startCluster(t, 1, kfake.DefaultNumPartitions(3))
	a := providertest.Start(t, newTest(t, Config{Brokers: c.ListenAddrs()}))
	old := newFrame("old")
	if err := a.Provider.Send(t.Context(), [][]byte{old}); err != nil {
		t.Fatal(err)
	}
	b := providertest.Start(t, newTest(t, Config{Brokers: c.ListenAddrs()}))
	hears(t, a, b, "new")
	if count(b, old) > 0 {
		t.Error("what was sent before is heard")
	}
}

// createPartitions adds partitions, as an operator does.
func createPartitions(tb testing.TB, c *kfake.Cluster, topic string, n int32) {
	tb.Helper()
	req := kmsg.NewPtrCreatePartitionsRequest()
	rt := kmsg.NewCreatePartitionsRequestTopic()
	rt.Topic, rt.Count = topic, n
	req.Topics, req.TimeoutMillis = append(req.Topics, rt), 5000
	answer, err := stranger(tb, c.ListenAddrs()).Request(tb.Context(), req)
	if err == nil {
		err = kerr.ErrorForCode(answer.(*kmsg.CreatePartitionsResponse).Topics[0].ErrorCode)
	}
	if err != nil {
		tb.Fatal(err)
	}
}

// Whoever has seen a new partition may use it before others have. They read it from its beginning.
func TestWatch_ReadsNewPartitionsFromTheirBeginning(t *testing.T) {
	c := startCluster(t, 2)
	p, q := newTest(t, Config{Brokers: c.ListenAddrs()}), newTest(t, Config{Brokers: c.ListenAddrs()})
	p.cfg.lookEvery = 50 * time.Millisecond
	a, b := providertest.Start(t, p), providertest.Start(t, q)
	providertest.Introduce(a, b)
	hears(t, b, a, "at first")
	createPartitions(t, c, testTopic, 5)
	cl := stranger(t, c.ListenAddrs())
	var frames [][]byte
	for i := range int32(5) {
		frame := newFrame("in a new partition")
		r := newRecord(testTopic, []byte("another"), &tag{9}, frame)
		r.Partition = i
		if err := cl.ProduceSync(t.Context(), r).FirstErr(); err != nil {
			t.Fatal(err)
		}
		frames = append(frames, frame)
	}
	for i, f := range frames {
		if !a.Heard(f, patience) {
			t.Errorf("what is in partition %d is not heard", i)
		}
		if n := count(a, f); n != 1 {
			t.Errorf("what is in partition %d is heard %d times", i, n)
		}
	}
	hears(t, b, a, "afterwards")
	if n := a.Reconnects(); n > 0 {
		t.Errorf("it was told of %d losses", n)
	}
}

// The topic of another site may be made after the instance that reads it has started.
func TestWatch_ReadsTheTopicOfAnotherSiteWhenItIsMade(t *testing.T) {
	c := startCluster(t, 1)
	p := newTest(t, Config{Brokers: c.ListenAddrs()})
	p.cfg.lookEvery = 50 * time.Millisecond
	own, foreign := site.ID{1}, site.ID{2}
	a := providertest.NewEndpoint(t, p, provider.Env{Site: own, Sites: []site.ID{own, foreign, foreign}})
	if err := a.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	if c.TopicInfo(p.topic(foreign)) != nil {
		t.Error("a topic was made for another site")
	}
	b := providertest.NewEndpoint(t, newTest(t, Config{Brokers: c.ListenAddrs()}), provider.Env{Site: foreign})
	if err := b.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	first := newFrame("the first")
	if err := b.Provider.Send(t.Context(), [][]byte{first}); err != nil {
		t.Fatal(err)
	}
	if !a.Heard(first, patience) {
		t.Error("what is sent on another site that is accepted is not heard")
	}
	if err := a.Provider.Send(t.Context(), [][]byte{newFrame("own")}); err != nil {
		t.Fatal(err)
	}
	hears(t, b, a, "again")
	if n := len(b.Frames()); n > 0 {
		t.Errorf("it hears %d frames of a site that it does not accept", n)
	}
}

// Somebody deletes the topic: what was in it is lost, and it is made again.
func TestWatch_MakesADeletedTopicAgain(t *testing.T) {
	c := startCluster(t, 1)
	p, q := newTest(t, Config{Brokers: c.ListenAddrs()}), newTest(t, Config{Brokers: c.ListenAddrs()})
	p.cfg.lookEvery, q.cfg.lookEvery = 50*time.Millisecond, 50*time.Millisecond
	a, b := providertest.Start(t, p), providertest.Start(t, q)
	providertest.Introduce(a, b)
	for i := range 20 {
		hears(t, a, b, "at first "+string(rune('a'+i)))
	}
	if err := c.DeleteTopic(testTopic); err != nil {
		t.Fatal(err)
	}
	eventually(t, "both are told", func() bool { return a.Reconnects() > 0 && b.Reconnects() > 0 })
	hearsAgain(t, a, b, "afterwards")
	hearsAgain(t, b, a, "and back")
}

// Made again by somebody else, perhaps with less in it than the old one had: what is in the new one is heard from its beginning.
func TestWatch_NoticesATopicThatWasMadeAgain(t *testing.T) {
	c := startCluster(t, 1)
	p := newTest(t, Config{Brokers: c.ListenAddrs()})
	a := providertest.Start(t, p)
	b := providertest.Start(t, newTest(t, Config{Brokers: c.ListenAddrs()}))
	for range 20 {
		hears(t, b, a, "at first")
	}
	b.Close()
	if err := c.DeleteTopic(testTopic); err != nil {
		t.Fatal(err)
	}
	if err := c.CreateTopic(testTopic, 1, nil); err != nil {
		t.Fatal(err)
	}
	frame := newFrame("the first in the new one")
	if err := stranger(t, c.ListenAddrs()).ProduceSync(t.Context(), newRecord(testTopic, nil, &tag{9}, frame)).FirstErr(); err != nil {
		t.Fatal(err)
	}
	if !a.Heard(frame, patience) || count(a, frame) != 1 {
		t.Errorf("it was heard %d times", count(a, frame))
	}
	if a.Reconnects() == 0 {
		t.Error("Reconnected was not called")
	}
}

// Records have the stream as their key, and something random before it is known.
func TestSend_KeyIsTheStream(t *testing.T) {
	c := startCluster(t, 1, kfake.DefaultNumPartitions(8))
	a := providertest.Start(t, newTest(t, Config{Brokers: c.ListenAddrs()}))
	send := func(frame string) {
		t.Helper()
		if err := a.Provider.Send(t.Context(), [][]byte{[]byte(frame)}); err != nil {
			t.Fatal(err)
		}
	}
	send("before")
	providertest.Introduce(a)
	for range 10 {
		send("after")
	}
	cl := stranger(t, c.ListenAddrs(), kgo.ConsumeTopics(testTopic))
	keys := make(map[string][]string)
	partitions := make(map[string][]int32)
	for n := 0; n < 11; {
		fetched := cl.PollFetches(t.Context())
		if err := fetched.Err(); err != nil {
			t.Fatal(err)
		}
		fetched.EachRecord(func(r *kgo.Record) {
			if v := string(r.Value); v != "" {
				n++
				keys[v] = append(keys[v], string(r.Key))
				partitions[v] = append(partitions[v], r.Partition)
			}
		})
	}
	if got, want := slices.Compact(keys["after"]), a.Stream().String(); !slices.Equal(got, []string{want}) {
		t.Errorf("keys %q, want %q", got, want)
	}
	if got := slices.Compact(partitions["after"]); len(got) != 1 {
		t.Errorf("one stream is in the partitions %v", got)
	}
	if got := keys["before"]; len(got) != 1 || len(got[0]) != 16 {
		t.Errorf("before the stream is known the key is %q", got)
	}
}
