// Package awsbustest emulates the parts of Amazon SNS and SQS that provider/awsbus uses, for tests: of that
// provider, and of whatever is built on it. The AWS SDK talks to it unchanged.
//
// It has one account in one region, topics, queues, subscriptions with filter policies and raw delivery, queue policies that are
// enforced, signatures that are verified, visibility timeouts and long polling. It knows the services' limits, and
// faults on request: refused and failing calls, entries of a batch that fail, throttling, outages, lost state, redelivery, and another order. It is
// no SNS and no SQS: what holds here was not seen to hold there.
package awsbustest

import (
	"cmp"
	"context"
	"errors"
	"io"
	"maps"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
)

// Options say how an Emulator differs from the default. The zero Options are the services' own limits.
type Options struct {
	Region  string // "" is eu-central-1
	Account string // "" is 123456789012

	// FilterPolicies is how many subscriptions of a topic may have one. 0 is 200.
	FilterPolicies int

	// DeletedRecently is for how long the name of a queue that was deleted cannot be used. 0 is 60 s; negative is not at all.
	DeletedRecently time.Duration

	// LateFilters has filter policies take no effect, as may be so for minutes after they were set.
	LateFilters bool

	// LateSubscriptions is how many messages pass a new subscription by, as those of its first moments may.
	LateSubscriptions int

	// LateQueues is how many calls to receive from a new queue are told that there is none.
	LateQueues int

	// Reorder has ReceiveMessage return messages in random order.
	Reorder bool

	// Repeat has every n-th message that is received stay visible, so that it comes again at once. 0: none.
	Repeat int
}

// An Emulator is SNS and SQS of one account in one region. It is safe for concurrent use. Make one with [Start].
type Emulator struct {
	opts    Options
	address string

	mu      sync.Mutex // guards the fields below; not held while a long poll waits
	server  *http.Server
	serving chan struct{}    // closed when server has ended
	stopped chan struct{}    // closed when server is stopped, so that polls end
	users   map[string]*user // by access key
	faults  func(action string) *Fault
	entries func(action string, i int) bool
	lose    string // action
	counts  map[string]int
	conns   map[net.Conn]bool
	state
}

// state is what the services keep.
type state struct {
	topics  map[string]*topic // by name
	queues  map[string]*queue // by name
	deleted map[string]time.Time
	next    uint64 // of IDs
	taken   int    // messages that were received, for Repeat
}

// A Fault is how a call fails.
type Fault struct {
	Status  int    // of HTTP; 0 is 400
	Code    string // "Throttling"
	Message string
}

// Error implements error.
func (f *Fault) Error() string { return f.Code + ": " + f.Message }

// Throttled is the answer to one who asks too often.
func Throttled() *Fault { return &Fault{400, "Throttling", "Rate exceeded"} }

// Internal is the answer when something is wrong over there.
func Internal() *Fault {
	return &Fault{500, "InternalError", "We encountered an internal error. Please try again."}
}

// Start starts an Emulator on the loopback interface, with one user who may do everything. It is stopped when the test ends.
func Start(tb testing.TB, o Options) *Emulator {
	tb.Helper()
	o.Region = cmp.Or(o.Region, "eu-central-1")
	o.Account = cmp.Or(o.Account, "123456789012")
	o.FilterPolicies = cmp.Or(o.FilterPolicies, 200)
	o.DeletedRecently = cmp.Or(o.DeletedRecently, time.Minute)
	e := &Emulator{opts: o, counts: make(map[string]int), users: make(map[string]*user), conns: make(map[net.Conn]bool)}
	e.Forget()
	e.AddUser(defaultKey, defaultSecret, "")
	if err := e.listen("127.0.0.1:0"); err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(e.Stop)
	return e
}

// URL is the endpoint of both services.
func (e *Emulator) URL() string { return "http://" + e.address }

// Address is host and port of URL.
func (e *Emulator) Address() string { return e.address }

// Config returns the region and the credentials of the user who may do everything.
func (e *Emulator) Config() aws.Config { return e.ConfigOf(defaultKey, defaultSecret, "") }

// ConfigOf returns the region and credentials.
func (e *Emulator) ConfigOf(key, secret, token string) aws.Config {
	return aws.Config{
		Region: e.opts.Region,
		Credentials: aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) {
			return aws.Credentials{AccessKeyID: key, SecretAccessKey: secret, SessionToken: token, Source: "awsbustest"}, nil
		}),
	}
}

// listen begins to serve.
func (e *Emulator) listen(address string) error {
	ln, err := net.Listen("tcp", address)
	if err != nil {
		return err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.address == "" { // it stays the same
		e.address = ln.Addr().String()
	}
	e.stopped, e.serving = make(chan struct{}), make(chan struct{})
	e.server = &http.Server{Handler: http.HandlerFunc(e.serve), ConnState: e.connChanged}
	go func(s *http.Server, done chan struct{}) {
		defer close(done)
		s.Serve(ln)
	}(e.server, e.serving)
	return nil
}

// Stop ends the service at once: nobody is answered any more. What it knows, it keeps. Stopping twice is fine.
func (e *Emulator) Stop() {
	e.mu.Lock()
	server, serving := e.server, e.serving
	if server != nil {
		close(e.stopped)
	}
	e.server = nil
	e.mu.Unlock()
	if server != nil {
		server.Close()
		<-serving
	}
}

// Restart makes a stopped Emulator serve again, at its address. It panics if another has taken that.
func (e *Emulator) Restart() {
	if err := e.listen(e.address); err != nil {
		panic(err)
	}
}

// Forget loses all topics, queues and messages.
func (e *Emulator) Forget() {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, q := range e.queues {
		q.changedLocked()
	}
	e.state = state{topics: make(map[string]*topic), queues: make(map[string]*queue), deleted: make(map[string]time.Time), next: e.next}
}

// SetFaults has fn asked for each call what is to be wrong with it. action is such as "sns:PublishBatch". Nil, from either: nothing.
// fn is called with calls waiting for it, so it must not call the Emulator.
func (e *Emulator) SetFaults(fn func(action string) *Fault) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.faults = fn
}

// SetEntryFaults has fn asked for each entry of a batch, by its index, whether it is to fail. Nil is none.
func (e *Emulator) SetEntryFaults(fn func(action string, i int) bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.entries = fn
}

// Lose has the next answer to an action that holds something break off on its way: what it did is done.
func (e *Emulator) Lose(action string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.lose = action
}

// lost reports whether an answer breaks off.
func (e *Emulator) lost(action string, answer any) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	if got, ok := answer.(receipts); e.lose != action || ok && len(got.Messages) == 0 {
		return false
	}
	e.lose = ""
	return true
}

// Calls returns how often each action was called since the start or the last ResetCalls.
func (e *Emulator) Calls() map[string]int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return maps.Clone(e.counts)
}

// ResetCalls begins to count anew.
func (e *Emulator) ResetCalls() {
	e.mu.Lock()
	defer e.mu.Unlock()
	clear(e.counts)
}

// Connections returns how many connections are open.
func (e *Emulator) Connections() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return len(e.conns)
}

func (e *Emulator) connChanged(c net.Conn, s http.ConnState) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if s == http.StateClosed {
		delete(e.conns, c)
	} else {
		e.conns[c] = true
	}
}

const maxRequest = 4 << 20

// serve answers one call.
func (e *Emulator) serve(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxRequest))
	if err != nil {
		return
	}
	service, name := "sns", ""
	var form url.Values
	if target := r.Header.Get("X-Amz-Target"); target != "" {
		service, name = "sqs", strings.TrimPrefix(target, "AmazonSQS.")
	} else if form, err = url.ParseQuery(string(body)); err == nil {
		name = form.Get("Action")
	}
	answer, err := e.call(r, service, name, form, body)
	if r.Context().Err() != nil {
		return
	}
	if err == nil && e.lost(service+":"+name, answer) {
		panic(http.ErrAbortHandler)
	}
	if service == "sns" {
		writeXML(w, name, answer, err)
	} else {
		writeJSON(w, answer, err)
	}
}

// call does what is asked for, if it may be.
func (e *Emulator) call(r *http.Request, service, name string, form url.Values, body []byte) (any, error) {
	action := service + ":" + name
	e.mu.Lock()
	e.counts[action]++
	err := e.admitLocked(r, service, name, body)
	if err == nil && e.faults != nil {
		if f := e.faults(action); f != nil {
			err = f
		}
	}
	stopped := e.stopped
	e.mu.Unlock()
	if err != nil {
		return nil, err
	}
	if service == "sns" {
		return e.sns(name, form)
	}
	return e.sqs(r, stopped, name, body)
}

// faultOf returns what err is to a caller.
func faultOf(err error) *Fault {
	f, ok := errors.AsType[*Fault](err)
	if !ok {
		f = &Fault{500, "InternalError", err.Error()}
	}
	if f.Status == 0 {
		c := *f
		c.Status = http.StatusBadRequest
		f = &c
	}
	return f
}

// failsLocked reports whether an entry of a batch is to fail.
func (e *Emulator) failsLocked(action string, i int) bool {
	return e.entries != nil && e.entries(action, i)
}
