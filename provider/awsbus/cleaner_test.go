package awsbus

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sqs"

	"github.com/carillon-go/carillon/provider"
	"github.com/carillon-go/carillon/provider/awsbus/awsbustest"
	"github.com/carillon-go/carillon/provider/providertest"
	"github.com/carillon-go/carillon/site"
)

// die ends an instance as a crash does: nothing is taken down at the services.
func die(e *providertest.Endpoint) {
	p := of(e)
	p.mu.Lock()
	p.made = made{}
	p.mu.Unlock()
	e.Close()
}

// Fifty instances start, twenty of them die. Exactly what these have left is removed, by one that has never started, and
// the others do not notice.
func TestCleaner_RemovesWhatTheDeadHaveLeft(t *testing.T) {
	const all, dead = 50, 20
	e := awsbustest.Start(t, awsbustest.Options{})
	instances := start(t, e, all)
	var left []string // of the dead
	for _, i := range instances[:dead] {
		left = append(left, i.Provider.(*Provider).Addresses()...)
		die(i)
	}
	janitor := at(t, e)
	defer janitor.Close()
	s := instances[0].Env().Site
	listed, err := janitor.Subscriptions(t.Context(), s)
	if err != nil || len(listed) != all {
		t.Fatalf("%d subscriptions are listed, want %d; %v", len(listed), all, err)
	}
	for _, sub := range listed {
		if age := time.Since(sub.Created); age < -time.Minute || age > time.Hour {
			t.Errorf("%q was created at %v", sub.Name, sub.Created)
		}
		if slices.Contains(left, sub.Name) {
			if err := janitor.Unsubscribe(t.Context(), s, sub); err != nil {
				t.Errorf("remove %q: %v", sub.Name, err)
			}
		}
	}
	listed, err = janitor.Subscriptions(t.Context(), s)
	if err != nil || len(listed) != all-dead || e.Subscriptions() != all-dead {
		t.Errorf("after that %d queues are listed, and there are %d subscriptions, want %d; %v", len(listed), e.Subscriptions(), all-dead, err)
	}
	f := []byte("to the living")
	living := instances[dead:]
	if err := living[0].Provider.Send(t.Context(), [][]byte{f}); err != nil {
		t.Fatal(err)
	}
	for i, b := range living[1:] {
		if !b.Heard(f, patience) || b.Reconnects() > 0 {
			t.Errorf("living instance %d: heard %v, Reconnected %d times", i+1, b.Heard(f, 0), b.Reconnects())
		}
	}
}

// More than a page of either list.
func TestCleaner_ReadsWholeLists(t *testing.T) {
	t.Parallel() // it mostly waits
	e := awsbustest.Start(t, awsbustest.Options{})
	p := at(t, e)
	defer p.Close()
	s := site.ID{1}
	const n = 1_050 // a page of queues has 1,000
	for range n {
		name := p.names.queue(s, newInstanceID())
		if _, err := p.clients.sqs.CreateQueue(t.Context(), &sqs.CreateQueueInput{QueueName: &name}); err != nil {
			t.Fatal(err)
		}
	}
	listed, err := p.Subscriptions(t.Context(), s)
	if err != nil || len(listed) != n {
		t.Errorf("%d are listed, want %d; %v", len(listed), n, err)
	}

	// A page of subscriptions has 100; the one that is looked for is the last.
	const subscriptions = 205
	l := &link{p: p, env: provider.Env{Site: s, Sites: []site.ID{s}}}
	topic := "arn:aws:sns:eu-central-1:123456789012:" + p.names.topic(s)
	if err := publish(t.Context(), e, s, "x", "x", "x"); err != nil { // makes the topic
		t.Fatal(err)
	}
	p.remember(func(m *made) { m.unfiltered = true })
	l.made = p.made
	for _, sub := range listed[:subscriptions] {
		if err := l.subscribe(t.Context(), topic, queueARN(topic, sub.Name)); err != nil {
			t.Fatal(err)
		}
	}
	p.remember(func(m *made) { *m = made{} })
	if err := p.Unsubscribe(t.Context(), s, listed[subscriptions-1]); err != nil {
		t.Fatal(err)
	}
	if got := e.Subscriptions(); got != subscriptions-1 {
		t.Errorf("%d subscriptions are left, want %d", got, subscriptions-1)
	}
}

// What is not an instance's of this site is neither listed nor removed, however alike the names are.
func TestCleaner_LeavesAloneWhatIsNotOfTheSite(t *testing.T) {
	e := awsbustest.Start(t, awsbustest.Options{})
	p := at(t, e)
	defer p.Close()
	s := site.ID{1}
	other := s
	other[15] = 1
	mine := p.names.queue(s, newInstanceID())
	foreign := []string{
		p.names.queue(other, newInstanceID()),
		p.names.queues(s) + "deadletters",
		mine + "2",
		newNames("carillon2").queue(s, newInstanceID()),
		newNames("x-carillon").queue(s, newInstanceID()),
	}
	for _, name := range append(foreign, mine) {
		if _, err := p.clients.sqs.CreateQueue(t.Context(), &sqs.CreateQueueInput{QueueName: aws.String(name)}); err != nil {
			t.Fatal(err)
		}
	}
	listed, err := p.Subscriptions(t.Context(), s)
	if err != nil || len(listed) != 1 || listed[0].Name != mine {
		t.Errorf("listed are %v, %v; want %q alone", listed, err, mine)
	}
	for _, name := range foreign {
		err := p.Unsubscribe(t.Context(), s, provider.Subscription{Name: name})
		if !strings.HasPrefix(name, p.names.queues(s)) && err == nil {
			t.Errorf("removing %q of another site is no error", name)
		}
	}
	if left := e.Queues(); len(left) != len(foreign)+1 {
		t.Errorf("left are %q", left)
	}
}

// The queue went and its subscription stayed, as after Unsubscribe was interrupted or somebody was at it by hand.
func TestCleaner_RemovesTheSubscriptionOfAQueueThatIsGone(t *testing.T) {
	e := awsbustest.Start(t, awsbustest.Options{})
	b := start(t, e, 1)[0]
	name := of(b).Addresses()[0]
	die(b)
	e.DeleteQueue(name)
	p := at(t, e)
	defer p.Close()
	if err := p.Unsubscribe(t.Context(), b.Env().Site, provider.Subscription{Name: name}); err != nil {
		t.Fatal(err)
	}
	if n := e.Subscriptions(); n > 0 {
		t.Errorf("%d subscriptions are left", n)
	}
}

// Of an instance that accepts several sites everything goes, though only one site is asked about.
func TestCleaner_RemovesSubscriptionsToTopicsOfOtherSites(t *testing.T) {
	e := awsbustest.Start(t, awsbustest.Options{})
	mine, theirs := site.ID{1}, site.ID{2}
	n := providertest.NewEndpoint(t, at(t, e), provider.Env{Site: mine, Sites: []site.ID{mine, theirs}})
	if err := n.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := e.Subscriptions(); got != 2 {
		t.Fatalf("there are %d subscriptions, want one for each site", got)
	}
	die(n)
	p := at(t, e)
	defer p.Close()
	if err := p.Unsubscribe(t.Context(), mine, provider.Subscription{Name: of(n).Addresses()[0]}); err != nil {
		t.Fatal(err)
	}
	if got := e.Subscriptions(); got > 0 || len(e.Queues()) > 0 {
		t.Errorf("%d subscriptions and queues %q are left", got, e.Queues())
	}
}

func TestClose_RemovesEverything(t *testing.T) {
	e := awsbustest.Start(t, awsbustest.Options{})
	for _, tt := range []struct {
		name  string
		cfg   Config
		close func(*Provider)
	}{
		{"while it runs", Config{}, func(*Provider) {}},
		{"with a long prefix", Config{Prefix: strings.Repeat("p", maxPrefix)}, func(*Provider) {}},
		{"while the link is away", Config{}, func(p *Provider) {
			e.SetFaults(func(action string) *awsbustest.Fault {
				if action == "sqs:ReceiveMessage" || action == "sns:CreateTopic" {
					return &awsbustest.Fault{Code: "Unhelpful"}
				}
				return nil
			})
			e.Stop() // ends the poll
			e.Restart()
			if !eventually(func() bool { return !p.runs() }) {
				t.Error("the link stays")
			}
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			defer e.SetFaults(nil)
			tt.cfg.AWS, tt.cfg.Endpoint = e.Config(), e.URL()
			b := providertest.Start(t, newTest(t, tt.cfg))
			name := of(b).Addresses()[0]
			attributes, tags, _ := e.Queue(name)
			if want := b.Env().Site.String(); tags[tagSite] != want {
				t.Errorf("the queue's tags are %v, want %s = %s", tags, tagSite, want)
			}
			if attributes["MessageRetentionPeriod"] != "600" || attributes["VisibilityTimeout"] != "30" {
				t.Errorf("attributes of the queue: %v", attributes)
			}
			tt.close(of(b))
			if err := b.Close(); err != nil {
				t.Error(err)
			}
			if q, n := e.Queues(), e.Subscriptions(); len(q) > 0 || n > 0 {
				t.Errorf("queues %q and %d subscriptions are left", q, n)
			}
		})
	}
}

// Only the topic may send to the queue: with another policy nothing arrives, and the test of the way says so.
func TestQueuePolicy_LetsInTheTopicAlone(t *testing.T) {
	e := awsbustest.Start(t, awsbustest.Options{})
	all := start(t, e, 2)
	name := of(all[1]).Addresses()[0]
	const topic = "arn:aws:sns:eu-central-1:123456789012:"
	for _, tt := range []struct {
		name  string
		topic string
		heard bool
	}{
		{"its own", topic + of(all[1]).names.topic(all[1].Env().Site), true},
		{"another", topic + "carillon-another", false},
	} {
		if !eventually(func() bool { _, _, n := e.Queue(name); return n == 0 }) {
			t.Fatal("the queue is not emptied")
		}
		if err := e.SetPolicy(name, queuePolicy(queueARN(topic+"x", name), []string{tt.topic})); err != nil {
			t.Fatal(err)
		}
		f := fmt.Append(nil, "while the policy lets in ", tt.name)
		if err := all[0].Provider.Send(t.Context(), [][]byte{f}); err != nil {
			t.Fatal(err)
		}
		if tt.heard && !all[1].Heard(f, patience) {
			t.Errorf("%s topic may send, and is not heard", tt.name)
		}
		if _, _, n := e.Queue(name); !tt.heard && (n > 0 || all[1].Heard(f, 0)) {
			t.Errorf("%s topic may send, and it is not the site's", tt.name)
		}
	}
}

func TestCleaner_AfterClose(t *testing.T) {
	e := awsbustest.Start(t, awsbustest.Options{})
	p := at(t, e)
	p.Close()
	if _, err := p.Subscriptions(context.Background(), site.ID{}); err != provider.ErrClosed {
		t.Errorf("Subscriptions: %v", err)
	}
	if err := p.Unsubscribe(context.Background(), site.ID{}, provider.Subscription{}); err != provider.ErrClosed {
		t.Errorf("Unsubscribe: %v", err)
	}
}
