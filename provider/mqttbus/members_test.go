package mqttbus

import (
	"errors"
	"testing"

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
