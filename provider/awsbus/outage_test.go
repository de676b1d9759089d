package awsbus

import (
	"strings"
	"testing"
	"time"

	"github.com/carillon-go/carillon/carillontest"
	"github.com/carillon-go/carillon/provider"
	"github.com/carillon-go/carillon/provider/awsbus/awsbustest"
	"github.com/carillon-go/carillon/provider/providertest"
)

// The services go away again and again while instances raise events.
func TestBrokers_LoseNothingInSilenceWhenTheServicesAreKilled(t *testing.T) {
	for name, forget := range map[string]bool{"and keep what they have": false, "and lose what they have": true} {
		t.Run(name, func(t *testing.T) {
			e := awsbustest.Start(t, awsbustest.Options{})
			events, kills := 10_000, 5
			if forget {
				events, kills = 2_000, 2
			}
			carillontest.Outages{
				Provider: func(int) provider.Provider { return at(t, e) },
				Kill: func() {
					e.Stop()
					if forget {
						e.Forget()
					}
				},
				Start:  e.Restart,
				Events: events, Kills: kills,
			}.Run(t)
		})
	}
}

// Whatever of an instance is removed by hand is made again, under the same name.
func TestLink_IsMadeAgain(t *testing.T) {
	for _, tt := range []struct {
		name   string
		remove func(e *awsbustest.Emulator, queue string)
	}{
		{"the queue", (*awsbustest.Emulator).DeleteQueue},
		{"the subscription", (*awsbustest.Emulator).Unsubscribe},
		{"the topic", func(e *awsbustest.Emulator, _ string) { e.DeleteTopics() }},
		{"the queue and its subscription", func(e *awsbustest.Emulator, queue string) { e.Unsubscribe(queue); e.DeleteQueue(queue) }},
		{"everything", func(e *awsbustest.Emulator, _ string) { e.Forget() }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			e := awsbustest.Start(t, awsbustest.Options{DeletedRecently: 300 * time.Millisecond})
			p := at(t, e)
			p.times.check = 20 * time.Millisecond
			a, b := providertest.Start(t, at(t, e)), providertest.Start(t, p)
			carry(t, a, b, "before")
			name := p.Addresses()[0]
			tt.remove(e, name)
			if !eventually(func() bool { return b.Reconnects() > 0 }) {
				t.Fatal("Reconnected is not called")
			}
			carry(t, a, b, "after")
			if p.Addresses()[0] != name {
				t.Errorf("the address was %q and is %q", name, p.Addresses()[0])
			}
		})
	}
}

// The topic is gone: who publishes hears of it at once, and the topic is made again.
func TestSend_MakesATopicThatIsGone(t *testing.T) {
	e := awsbustest.Start(t, awsbustest.Options{})
	a := start(t, e, 1)[0]
	e.DeleteTopics()
	if err := a.Provider.Send(t.Context(), [][]byte{[]byte("into nothing")}); err == nil || !strings.Contains(err.Error(), "the topic is gone; it is made again") {
		t.Errorf("Send: %v", err)
	}
	if !eventually(func() bool { return a.Reconnects() > 0 }) {
		t.Fatal("Reconnected is not called")
	}
	b := start(t, e, 1)[0]
	carry(t, b, a, "after")
	carry(t, a, b, "after")
}

func TestSend_NoticesSilence(t *testing.T) {
	t.Parallel() // it mostly waits
	e := awsbustest.Start(t, awsbustest.Options{})
	relay := providertest.NewRelay(t, e.Address())
	p := newTest(t, Config{AWS: e.Config(), Endpoint: "http://" + relay.Addr()})
	p.times.answer = 500 * time.Millisecond
	b := providertest.Start(t, p)
	relay.Hold()
	defer relay.Release()
	if err := b.Provider.Send(t.Context(), [][]byte{[]byte("into nothing")}); err == nil || !strings.Contains(err.Error(), "sns:Publish: no answer in time") {
		t.Errorf("Send: %v", err)
	}
}

// A call that nobody answers, on a network that drops everything, is given up.
func TestLink_NoticesSilence(t *testing.T) {
	t.Parallel() // it mostly waits
	e := awsbustest.Start(t, awsbustest.Options{})
	relay := providertest.NewRelay(t, e.Address())
	p := newTest(t, Config{AWS: e.Config(), Endpoint: "http://" + relay.Addr()})
	p.times.answer, p.times.poll = 500*time.Millisecond, time.Second
	b := providertest.Start(t, p)
	a := start(t, e, 1)[0]
	relay.Hold()
	defer relay.Release()
	if !eventually(func() bool { return !p.runs() }) {
		t.Error("the link stays")
	}
	if err := p.Send(t.Context(), [][]byte{[]byte("into nothing")}); err == nil || !strings.Contains(err.Error(), "no answer in time") {
		t.Errorf("Send: %v", err)
	}
	relay.Release()
	carry(t, a, b, "after")
	if b.Reconnects() == 0 {
		t.Error("Reconnected is not called")
	}
}

// The 30 s of an outage are made shorter: it is over after several attempts.
func TestLink_ComesBackAfterSeveralAttempts(t *testing.T) {
	t.Parallel() // it mostly waits
	e := awsbustest.Start(t, awsbustest.Options{})
	all := start(t, e, 2)
	attempts := make(chan struct{}, 100)
	e.SetFaults(func(action string) *awsbustest.Fault {
		if action == "sns:CreateTopic" {
			select {
			case attempts <- struct{}{}:
			default:
			}
		}
		return &awsbustest.Fault{Status: 503, Code: "ServiceUnavailable"}
	})
	if err := all[0].Provider.Send(t.Context(), [][]byte{[]byte("not now")}); err == nil {
		t.Error("Send takes a frame while the service is unavailable")
	}
	e.Stop() // ends the polls that run
	e.Restart()
	for range 6 { // three for each attempt
		<-attempts
	}
	e.SetFaults(nil)
	carry(t, all[0], all[1], "after")
	carry(t, all[1], all[0], "after that")
}
