package awsbus

import (
	"bytes"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/carillon-go/carillon/provider"
	"github.com/carillon-go/carillon/provider/awsbus/awsbustest"
	"github.com/carillon-go/carillon/provider/providertest"
	"github.com/carillon-go/carillon/site"
)

// frames returns n frames that differ.
func frames(n, size int) [][]byte {
	all := make([][]byte, n)
	for i := range all {
		all[i] = append(fmt.Appendf(nil, "%04d", i), bytes.Repeat([]byte{'f'}, size-4)...)
	}
	return all
}

func heardAll(e *providertest.Endpoint, frames [][]byte) bool {
	return !slices.ContainsFunc(frames, func(f []byte) bool { return !e.Heard(f, patience) })
}

// What is paid for is requests and messages.
func TestSend_ManyFramesAreFewMessages(t *testing.T) {
	for _, tt := range []struct {
		name         string
		frames, size int
		calls        int
		messages     int
	}{
		{"one", 1, 100, 1, 1},
		{"small ones", 200, 200, 1, 1},
		{"four messages are a call", 4, defaultFrameBytes, 1, 4},
		{"five are two", 5, defaultFrameBytes, 2, 5},
		{"a call has 256 KiB at most", 33, 16 << 10, 4, 17}, // of two frames each
	} {
		t.Run(tt.name, func(t *testing.T) {
			e := awsbustest.Start(t, awsbustest.Options{})
			all := start(t, e, 2)
			messages := 0
			var mu sync.Mutex
			all[1].OnBatch(func(b provider.Batch) {
				mu.Lock()
				defer mu.Unlock()
				messages++
				b.Done()
			})
			e.ResetCalls()
			sent := frames(tt.frames, tt.size)
			if err := all[0].Provider.Send(t.Context(), sent); err != nil {
				t.Fatal(err)
			}
			if !heardAll(all[1], sent) {
				t.Error("not all are heard")
			}
			eventually(func() bool { mu.Lock(); defer mu.Unlock(); return messages >= tt.messages })
			mu.Lock()
			defer mu.Unlock()
			if n := e.Calls()["sns:PublishBatch"]; n != tt.calls || messages != tt.messages {
				t.Errorf("%d calls with %d messages, want %d with %d", n, messages, tt.calls, tt.messages)
			}
		})
	}
}

// Of a batch only what SNS has not taken is sent again.
func TestSend_FailedEntriesAreSentAgain(t *testing.T) {
	e := awsbustest.Start(t, awsbustest.Options{})
	all := start(t, e, 2)
	var fails []int // entries of each call that fail
	calls := 0
	e.SetEntryFaults(func(action string, i int) bool {
		if action != "sns:PublishBatch" {
			return false
		}
		if i == 0 {
			calls++
		}
		fails = append(fails, i)
		return calls == 1 && i == 2
	})
	sent := frames(4, defaultFrameBytes)
	if err := all[0].Provider.Send(t.Context(), sent); err != nil {
		t.Fatal(err)
	}
	if !heardAll(all[1], sent) {
		t.Error("not all are heard")
	}
	if want := []int{0, 1, 2, 3, 0}; !slices.Equal(fails, want) {
		t.Errorf("entries sent %v, want %v", fails, want)
	}
	e.SetEntryFaults(func(action string, i int) bool { return action == "sns:PublishBatch" })
	if err := all[0].Provider.Send(t.Context(), sent[:1]); err == nil {
		t.Error("Send says nothing of an entry that SNS does not take")
	}
}

// What an instance has sent, and what is for another, the service keeps from it: it would have to be paid for.
func TestFilter_KeepsAwayWhatIsNotForTheInstance(t *testing.T) {
	for name, tt := range map[string]struct {
		options awsbustest.Options
		queued  bool // the queue gets it all the same, and the instance drops it
	}{
		"by the service":                     {awsbustest.Options{}, false},
		"before the policy has taken effect": {awsbustest.Options{LateFilters: true}, true},
		"no room for another policy":         {awsbustest.Options{FilterPolicies: 1}, true},
	} {
		t.Run(name, func(t *testing.T) {
			e := awsbustest.Start(t, tt.options)
			all := start(t, e, 3)
			e.SetFaults(func(action string) *awsbustest.Fault { // so that what a queue gets stays there
				if action == "sqs:DeleteMessageBatch" {
					return awsbustest.Internal()
				}
				return nil
			})
			last := all[2].Provider.(provider.Unicaster) // the one without a policy, if one has none
			forAll, forOne := []byte("for all"), []byte("for one")
			if err := last.Send(t.Context(), [][]byte{forAll}); err != nil {
				t.Fatal(err)
			}
			if err := last.SendTo(t.Context(), all[0].Stream(), [][]byte{forOne}); err != nil {
				t.Fatal(err)
			}
			if !all[0].Heard(forAll, patience) || !all[0].Heard(forOne, patience) || !all[1].Heard(forAll, patience) {
				t.Fatal("not all is heard")
			}
			_, _, queued := e.Queue(of(all[2]).queue)
			if (queued > 0) != tt.queued {
				t.Errorf("%d of its own messages are in the queue of the sender", queued)
			}
			carry(t, all[0], all[2], "the last")
			carry(t, all[0], all[1], "the last")
			if n := len(all[1].Frames()); n < 2 || all[1].Heard(forOne, 0) {
				t.Errorf("one has heard %q, which was for another", forOne)
			}
			if all[2].Heard(forAll, 0) || all[2].Heard(forOne, 0) {
				t.Error("an instance hears itself")
			}
		})
	}
}

// A message stays until its Done, and goes with others in one call.
func TestDone_DeletesInBatches(t *testing.T) {
	e := awsbustest.Start(t, awsbustest.Options{})
	p := at(t, e)
	p.times.linger = time.Hour // so that only what is complete goes
	a := providertest.Start(t, at(t, e))
	b := providertest.Start(t, p)
	dones := make(chan func(), 100)
	b.OnBatch(func(m provider.Batch) { dones <- m.Done })
	const n = 25
	for i := range n {
		if err := a.Provider.Send(t.Context(), [][]byte{fmt.Append(nil, "frame ", i)}); err != nil {
			t.Fatal(err)
		}
	}
	if !eventually(func() bool { return len(dones) == n }) {
		t.Fatalf("%d messages arrive", len(dones))
	}
	queued := func() int { _, _, n := e.Queue(p.queue); return n }
	if got := queued(); got != n {
		t.Errorf("before Done %d messages are in the queue, want %d", got, n)
	}
	e.ResetCalls()
	for range n {
		(<-dones)()
	}
	if !eventually(func() bool { return queued() == n%maxBatch }) {
		t.Errorf("after Done %d messages are in the queue, want the %d that make no whole batch", queued(), n%maxBatch)
	}
	if calls := e.Calls()["sqs:DeleteMessageBatch"]; calls != 2 {
		t.Errorf("%d calls to delete, want 2", calls)
	}
}

// One entry that fails is tried again; the others are not.
func TestDone_FailedEntriesAreTriedAgain(t *testing.T) {
	e := awsbustest.Start(t, awsbustest.Options{})
	all := start(t, e, 2)
	fails := 2
	e.SetEntryFaults(func(action string, i int) bool {
		if action != "sqs:DeleteMessageBatch" || fails == 0 {
			return false
		}
		fails--
		return true
	})
	for i := range 10 {
		if err := all[0].Provider.Send(t.Context(), [][]byte{fmt.Append(nil, "frame ", i)}); err != nil {
			t.Fatal(err)
		}
	}
	if !eventually(func() bool { _, _, n := e.Queue(of(all[1]).queue); return n == 0 && len(all[1].Frames()) == 10 }) {
		_, _, n := e.Queue(of(all[1]).queue)
		t.Errorf("%d frames are heard, and %d messages are left", len(all[1].Frames()), n)
	}
	if fails > 0 {
		t.Errorf("%d entries did not fail", fails)
	}
}

// While deleting fails altogether, receiving goes on, and it is made good.
func TestDone_DeletingFailsForAWhile(t *testing.T) {
	e := awsbustest.Start(t, awsbustest.Options{})
	all := start(t, e, 2)
	e.SetFaults(func(action string) *awsbustest.Fault {
		if action == "sqs:DeleteMessageBatch" {
			return &awsbustest.Fault{Code: "Unhelpful"}
		}
		return nil
	})
	carry(t, all[0], all[1], "first")
	carry(t, all[0], all[1], "second")
	e.ResetCalls()
	if !eventually(func() bool { return e.Calls()["sqs:DeleteMessageBatch"] > 0 }) {
		t.Error("it is not tried")
	}
	e.SetFaults(nil)
	if !eventually(func() bool { _, _, n := e.Queue(of(all[1]).queue); return n == 0 }) {
		t.Error("messages are left")
	}
	if n := all[1].Reconnects(); n > 0 {
		t.Errorf("Reconnected was called %d times", n)
	}
}

// What was received and not finished comes again.
func TestReceive_RedeliversWhatWasNotFinished(t *testing.T) {
	e := awsbustest.Start(t, awsbustest.Options{})
	all := start(t, e, 2)
	var mu sync.Mutex
	var kept []func()
	all[1].OnBatch(func(b provider.Batch) {
		if string(b.Frames[0]) != "again" {
			b.Done()
			return
		}
		mu.Lock()
		defer mu.Unlock()
		kept = append(kept, b.Done)
	})
	times := func() int { mu.Lock(); defer mu.Unlock(); return len(kept) }
	send := func(frame string) {
		t.Helper()
		if err := all[0].Provider.Send(t.Context(), [][]byte{[]byte(frame)}); err != nil {
			t.Fatal(err)
		}
	}
	messages := func() int { _, _, n := e.Queue(of(all[1]).queue); return n }
	send("again")
	if !eventually(func() bool { return times() == 1 }) {
		t.Fatal("not heard")
	}
	send("finished") // once that is deleted, so is whatever was finished before
	if !all[1].Heard([]byte("finished"), patience) || !eventually(func() bool { return messages() <= 1 }) {
		t.Fatal("what is finished is not deleted")
	}
	e.Redeliver()
	if !eventually(func() bool { return times() == 2 }) {
		t.Fatal("not heard again")
	}
	mu.Lock()
	for _, done := range kept {
		done()
	}
	mu.Unlock()
	if !eventually(func() bool { return messages() == 0 }) {
		t.Error("it is not deleted")
	}
}

// A call breaks off while it carries messages. They stay away for 30 s, so the Broker must hear of it now.
func TestReceive_TellsThatAnAnswerWasLost(t *testing.T) {
	e := awsbustest.Start(t, awsbustest.Options{})
	all := start(t, e, 2)
	e.Lose("sqs:ReceiveMessage")
	if err := all[0].Provider.Send(t.Context(), [][]byte{[]byte("lost")}); err != nil {
		t.Fatal(err)
	}
	if !eventually(func() bool { return all[1].Reconnects() == 1 }) {
		t.Error("Reconnected is not called")
	}
	carry(t, all[0], all[1], "another")
	if all[1].Heard([]byte("lost"), 0) {
		t.Error("what was lost is heard; then this test shows nothing")
	}
	e.Redeliver()
	if !all[1].Heard([]byte("lost"), patience) {
		t.Error("it does not come again")
	}
}

// What no instance sends goes to the Broker, which counts it, and is deleted.
func TestReceive_Strange(t *testing.T) {
	e := awsbustest.Start(t, awsbustest.Options{})
	b := start(t, e, 1)[0]
	const body = `{"event": "of another application"}`
	if err := publish(t.Context(), e, b.Env().Site, "them", toAll, body); err != nil {
		t.Fatal(err)
	}
	if !b.Heard([]byte(body), patience) {
		t.Error("the Broker does not get it")
	}
	if !eventually(func() bool { _, _, n := e.Queue(of(b).queue); return n == 0 }) {
		t.Error("it is not deleted")
	}
}

// An instance that accepts another site hears its instances, and reaches them.
func TestSites_SeveralAreAccepted(t *testing.T) {
	e := awsbustest.Start(t, awsbustest.Options{})
	mine, theirs, late := site.ID{1}, site.ID{2}, site.ID{3}
	endpoint := func(s site.ID, accepted ...site.ID) *providertest.Endpoint {
		n := providertest.NewEndpoint(t, at(t, e), provider.Env{Site: s, Sites: append([]site.ID{s}, accepted...)})
		if err := n.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { n.Close() })
		return n
	}
	a, b, c := endpoint(mine, theirs), endpoint(theirs), endpoint(late)
	carry(t, b, a, "from the other site")
	a.Provider.(provider.MemberWatcher).SetMembers(provider.Members{ // the third was not known at the start
		Self: a.Stream(), Others: []site.Member{b.Member(), c.Member()},
	})
	carry(t, c, a, "from the third site")
	carry(t, b, a, "and still from the other")
	to := []byte("to one of another site")
	if !eventually(func() bool {
		err := a.Provider.(provider.Unicaster).SendTo(t.Context(), b.Stream(), [][]byte{to})
		return err == nil
	}) || !b.Heard(to, patience) {
		t.Error("an instance of another site is not reached")
	}
	if b.Heard([]byte("from the third site"), 0) {
		t.Error("a site hears one that it does not accept")
	}
	// All of it goes.
	a.Close()
	b.Close()
	c.Close()
	if q, n := e.Queues(), e.Subscriptions(); len(q) > 0 || n > 0 {
		t.Errorf("queues %q and %d subscriptions are left", q, n)
	}
}
