package carillon

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/carillon-go/carillon/internal/engine"
	"github.com/carillon-go/carillon/provider"
	"github.com/carillon-go/carillon/site"
)

// Both packages say what a frame counts for, as neither may import the other.
const _ = -uint(engine.FrameCharge ^ provider.FrameCharge)

// controlLimit is how long a provider may hold up control frames and repairs. They
// are repeated, and waiting for them keeps event frames from being sent.
const controlLimit = time.Second

// An outlet is one transport, in use or standing by, by the name of its provider.
type outlet struct {
	name   string
	make   func() (provider.Provider, error) // a new provider of this name; nil: there is no other than the first
	prompt bool                              // Send keeps nobody waiting
	link   atomic.Pointer[link]              // never nil
	lane   lane
	turned chan turnout // capacity 1: what came of starting or stopping

	// Of follow, and of Open before it.
	state   outletState
	startAt time.Time // a start that failed is not tried again before
	used    bool      // the provider was started; while one starts, of that goroutine

	listening atomic.Bool   // state is subscribed
	idle      time.Duration // how often it carries what is said while idle; 0: always, negative: never
	idleAt    time.Time     // when what it carried last was said while idle; of who has the turn, see hand
	cleaning  cleaning

	framesSent, bytesSent, framesReceived, failures atomic.Uint64
	failLog                                         rate
	buffer                                          atomic.Int64 // bytes that its transport keeps for this instance; 0: it told nothing
	heard                                           heard

	mu      sync.Mutex // guards the fields below
	failing time.Time  // since when it accepts nothing; zero: it does
	err     error      // the last, while failing
	away    bool       // the provider said that it is, and has not said that it is back
	said    []string   // reasons that were logged since then, maxReasons at most
}

// maxReasons is how many reasons of one outage are logged. Some differ each time, as by the
// port of an attempt.
const maxReasons = 4

// A link is a provider with what else it can do.
type link struct {
	provider  provider.Provider
	unicaster provider.Unicaster     // or nil
	watcher   provider.MemberWatcher // or nil
}

func newLink(p provider.Provider) *link {
	l := &link{provider: p}
	l.unicaster, _ = p.(provider.Unicaster)
	l.watcher, _ = p.(provider.MemberWatcher)
	return l
}

func newOutlet(p provider.Provider, again func() (provider.Provider, error)) *outlet {
	o := &outlet{name: p.Name(), make: again, prompt: p.Capabilities().Prompt, idle: p.Capabilities().IdleHeartbeat, turned: make(chan turnout, 1)}
	o.link.Store(newLink(p))
	o.lane.init()
	return o
}

// receiveBuffer hears from o how much its transport keeps for this instance; 0: it has
// no transport any more.
func (b *Broker) receiveBuffer(o *outlet, bytes int) {
	o.buffer.Store(int64(bytes))
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.machine != nil {
		b.machine.SetWindow(b.window())
	}
}

// window returns how much may be on its way to this instance, or 0 if no transport
// told: what comes through several must fit into the smallest buffer.
func (b *Broker) window() int {
	window := int64(0)
	for _, o := range b.outs {
		if n := o.buffer.Load(); n > 0 && (window == 0 || n < window) {
			window = n
		}
	}
	return int(window)
}

// An outcome is what came of a call of Send.
type outcome uint8

const (
	notYet   outcome = iota // to be tried again
	accepted                // by the transport
	refused                 // for good
)

// try sends frames. to is zero for everybody. o's lane is held.
func (o *outlet) try(ctx context.Context, log *slog.Logger, to site.StreamID, frames [][]byte) outcome {
	l, err := o.link.Load(), provider.ErrUnreachable
	if to != (site.StreamID{}) && l.unicaster != nil {
		err = l.unicaster.SendTo(ctx, to, frames)
	}
	if errors.Is(err, provider.ErrUnreachable) {
		err = l.provider.Send(ctx, frames)
	}
	if err != nil {
		if ctx.Err() != nil {
			return notYet
		}
		return o.failed(log, err)
	}
	o.framesSent.Add(uint64(len(frames)))
	for _, f := range frames {
		o.bytesSent.Add(uint64(len(f)))
	}
	o.works(log)
	return accepted
}

// tryJobs tries each job once, all of them within controlLimit. o's lane is held.
func (o *outlet) tryJobs(ctx context.Context, log *slog.Logger, jobs []job) {
	ctx, cancel := context.WithTimeout(ctx, controlLimit)
	defer cancel()
	for _, j := range jobs {
		o.try(ctx, log, j.to, j.frames)
	}
}

// failed records that frames were not accepted, and returns whether they may be later.
func (o *outlet) failed(log *slog.Logger, err error) outcome {
	o.failures.Add(1)
	o.fails(err)
	final := errors.Is(err, provider.ErrClosed) || errors.Is(err, provider.ErrFrameTooLarge)
	o.tell(log, "provider does not accept frames", !final)
	if final {
		return refused
	}
	return notYet
}

// tell logs why o accepts nothing: each reason of an outage once, a few of them, and one a second at most. It goes on
// until somebody has mended what is wrong, which more lines do not hasten; Stats and Status tell how long it lasts.
func (o *outlet) tell(log *slog.Logger, msg string, retry bool) {
	since, err := o.failure()
	if err == nil || !o.isNews(err.Error()) {
		return
	}
	if _, ok := o.failLog.pass(); !ok {
		return
	}
	o.mu.Lock()
	o.said = append(o.said, err.Error())
	o.mu.Unlock()
	log.Warn(msg, keyProvider, o.name, keyError, err, "since", since, "retry", retry)
}

// isNews reports whether a reason is yet to be logged.
func (o *outlet) isNews(reason string) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return len(o.said) < maxReasons && !slices.Contains(o.said, reason)
}

// fails notes that o accepts nothing, and why.
func (o *outlet) fails(err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.failing.IsZero() {
		o.failing = time.Now()
	}
	o.err = err
}

// works notes that o has accepted something.
func (o *outlet) works(log *slog.Logger) { o.end(log, false) }

// disconnected hears from o's provider that it is away. The provider logs why.
func (o *outlet) disconnected(why error) {
	o.fails(why)
	o.mu.Lock()
	defer o.mu.Unlock()
	o.away = true
}

// reconnected hears from o's provider that it is back, or only that frames may be lost.
func (o *outlet) reconnected(log *slog.Logger) { o.end(log, true) }

// end ends an outage that the provider has told, or one that has shown in Send alone. It logs that if it was logged that o accepts
// nothing.
func (o *outlet) end(log *slog.Logger, told bool) {
	o.mu.Lock()
	if o.away != told {
		o.mu.Unlock()
		return
	}
	since, logged := o.failing, len(o.said) > 0
	o.clearLocked()
	o.mu.Unlock()
	if logged {
		log.Info("provider accepts frames again", keyProvider, o.name, "after", time.Since(since))
	}
}

// clear notes that there is no reason any more to say that o fails.
func (o *outlet) clear() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.clearLocked()
}

func (o *outlet) clearLocked() { o.failing, o.err, o.away, o.said = time.Time{}, nil, false, nil }

// failure returns since when the provider accepts nothing, and why.
func (o *outlet) failure() (since time.Time, err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.failing, o.err
}
