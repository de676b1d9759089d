package mqttbus

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/eclipse/paho.golang/packets"
	"github.com/eclipse/paho.golang/paho"

	"github.com/carillon-go/carillon/provider"
	"github.com/carillon-go/carillon/provider/providertest"
	"github.com/carillon-go/carillon/site"
)

// Instances of another site that is accepted turn up: what they send to all of theirs is heard, and each can be reached alone.
func TestSetMembers_FollowsOtherSites(t *testing.T) {
	s := startServer(t)
	a := started(t, Config{URLs: []string{s.url()}})
	b := providertest.NewEndpoint(t, newTest(t, Config{URLs: []string{s.url()}}), provider.Env{Site: site.ID([]byte("some other site."))})
	if err := b.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	send(t, b, "before")
	reachable(t, a, b)
	hears(t, b, a, "from the other site")
	if !b.Heard([]byte("reachable"), patience) {
		t.Error("what is sent to the one of the other site is not heard")
	}
	if a.Heard([]byte("before"), 0) {
		t.Error("the other site was heard before it had turned up: the test shows nothing")
	}
}

// Whoever hears from an instance can reach it.
func TestSetMembers_CanBeReachedAtOnce(t *testing.T) {
	s := startServer(t)
	for range 20 {
		a, b := started(t, Config{URLs: []string{s.url()}}), started(t, Config{URLs: []string{s.url()}})
		providertest.Introduce(a, b)
		if err := a.Provider.(*Provider).SendTo(t.Context(), b.Stream(), [][]byte{{1}}); err != nil {
			t.Error(err)
		}
		a.Close()
		b.Close()
	}
}

// The topic of a stream that the instance has no more is left, so that the server keeps nothing for it.
func TestSetMembers_LeavesTheOldStream(t *testing.T) {
	s := startServer(t)
	a, b := started(t, Config{URLs: []string{s.url()}}), started(t, Config{URLs: []string{s.url()}})
	reachable(t, a, b)
	b.Provider.(*Provider).SetMembers(provider.Members{Self: site.NewStreamID(1, 2), Others: []site.Member{a.Member()}})
	if !unreachable(t, a, b) {
		t.Error("its old stream can still be reached")
	}
	err := a.Provider.(*Provider).SendTo(t.Context(), site.NewStreamID(1, 2), [][]byte{{1}})
	if !errors.Is(err, provider.ErrUnreachable) {
		t.Errorf("SendTo a stream that no member has: %v, want ErrUnreachable", err)
	}
}

// What somebody has left in a topic to be kept, which no instance does, is no news.
func TestStart_HearsNothingOld(t *testing.T) {
	s := startServer(t)
	a := started(t, Config{URLs: []string{s.url()}})
	topic := a.Provider.(*Provider).toAll(a.Env().Site)
	if _, err := s.stranger(t, "").Publish(t.Context(), &paho.Publish{Topic: topic, QoS: 1, Retain: true, Payload: []byte("old")}); err != nil {
		t.Fatal(err)
	}
	b := started(t, Config{URLs: []string{s.url()}})
	hears(t, a, b, "something new")
	if !a.Heard([]byte("old"), patience) || b.Heard([]byte("old"), 0) {
		t.Error("want it to be heard by who was there, and by nobody else")
	}
}

// What this client asks of the server when it connects.
func TestConnect_SaysWhatItTakes(t *testing.T) {
	f := startFake(t, nil)
	started(t, Config{URLs: []string{f.url()}, SessionExpiry: 90 * time.Second})
	hello := came[*packets.Connect](f)[0]
	is := hello.Properties
	if *is.SessionExpiryInterval != 90 || *is.ReceiveMaximum != receiveMaximum || *is.MaximumPacketSize != maxPacketBytes || !hello.CleanStart {
		t.Errorf("it says %+v, clean start %t", is, hello.CleanStart)
	}
	if id := hello.ClientID; len(id) != 23 || !strings.HasPrefix(id, "carillon") || strings.ContainsFunc(id, func(r rune) bool { return !strings.ContainsRune("abcdefghijklmnopqrstuvwxyz0123456789", r) }) {
		t.Errorf("its name is %q; every server takes 23 letters and digits, and no other", id)
	}
	again := startFake(t, nil)
	started(t, Config{URLs: []string{again.url()}})
	if came[*packets.Connect](again)[0].ClientID == hello.ClientID {
		t.Error("two have the same name")
	}
}

// A server that does not say whether anybody is subscribed: who is no member is unreachable all the same.
func TestSendTo_WhoIsNoMember(t *testing.T) {
	f := startFake(t, nil)
	e := started(t, Config{URLs: []string{f.url()}})
	to := site.NewStreamID(1, 2)
	for _, members := range []*provider.Members{nil, {Self: e.Stream()}} {
		if members != nil {
			e.Provider.(*Provider).SetMembers(*members)
		}
		if err := e.Provider.(*Provider).SendTo(t.Context(), to, [][]byte{{1}}); !errors.Is(err, provider.ErrUnreachable) {
			t.Errorf("SendTo: %v, want ErrUnreachable", err)
		}
	}
	e.Provider.(*Provider).SetMembers(provider.Members{Self: e.Stream(), Others: []site.Member{{Site: e.Env().Site, Stream: to}}})
	if err := e.Provider.(*Provider).SendTo(t.Context(), to, [][]byte{{1}}); err != nil {
		t.Errorf("SendTo a member: %v", err)
	}
}
