package carillon

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/carillon-go/carillon/site"
)

const (
	acknowledgeWait = 2 * time.Second        // for others to acknowledge
	acknowledgePoll = 100 * time.Millisecond // others may fall silent, which no frame tells
	byeWait         = 500 * time.Millisecond // for providers to take the goodbye
	leaveWait       = time.Second            // for the database to close the row, when time is up
)

// Shutdown ends b in good order: what was raised is handed to a provider and, if it can be
// within 2 s, acknowledged by the others; they hear that this instance leaves
// and with which event; its member row and the providers are closed; and functions that
// were told of an event return. From its beginning on, nothing more is raised
// and no event from elsewhere is taken in.
//
// When ctx ends first, the rest is done as Close does it, and the error says
// what was left undone. Inside a function registered with an event Shutdown
// waits for that function itself, and so until ctx ends. A second call waits for the
// first one and returns nil; after Close it does nothing.
func (b *Broker) Shutdown(ctx context.Context) error {
	if !b.begin(false) {
		select {
		case <-b.done:
			return nil
		case <-ctx.Done():
			return fmt.Errorf("carillon: shut down: %w", context.Cause(ctx))
		}
	}
	var errs []error
	if b.machine != nil {
		poke(b.sendWake)
		if err := b.flush(ctx); err != nil {
			errs = append(errs, err)
		} else if err := b.acknowledged(ctx); err != nil {
			b.log.Warn("not every instance acknowledged what was sent to it", keyError, err)
		}
		b.sayBye(ctx)
	}
	errs = append(errs, b.teardown(ctx))
	return errors.Join(errs...)
}

// Close ends b now: what was not sent is not sent, and queued events are not told. The member row and the
// providers are closed, for which a database that is away gets a second. Functions
// that run are not waited for; none is called after Close has returned.
// Closing twice, or during or after Shutdown, is fine; the second call returns nil when b has ended.
func (b *Broker) Close() error {
	if !b.begin(true) {
		<-b.done
		return nil
	}
	return b.teardown(b.handlers)
}

// begin marks b as ending and reports whether this is the first call that does.
func (b *Broker) begin(hard bool) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	first := !b.closing.Load()
	b.closing.Store(true)
	b.sending = true // what was raised before Enable
	b.hold = holdBack{}
	b.space.signal() // whoever waits to raise gives up
	b.events.Range(func(_, e any) bool {
		if def := e.(*Event).def.Load(); def != nil {
			def.event.CompareAndSwap(e.(*Event), nil) // or a variable of a package keeps b
		}
		return true
	})
	if hard && !b.hardClosed {
		b.hardClosed = true
		close(b.hard)
		b.stopCall()
	}
	return first
}

// acknowledged waits until every instance that is alive has acknowledged everything.
func (b *Broker) acknowledged(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, acknowledgeWait)
	defer cancel()
	for {
		poll, stop := context.WithTimeout(ctx, acknowledgePoll)
		left, err := b.waitProgress(poll, func() uint64 {
			if b.machine.Drained(time.Now()) {
				return 0
			}
			return 1
		})
		stop()
		if left == 0 || ctx.Err() != nil || errors.Is(err, ErrClosed) {
			return err
		}
	}
}

// sayBye says goodbye and waits until that was sent.
func (b *Broker) sayBye(ctx context.Context) {
	b.mu.Lock()
	now := time.Now()
	b.machine.Bye(now, &b.fx)
	b.applyLocked(now)
	want := b.controlQueued
	b.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, byeWait)
	defer cancel()
	b.waitProgress(ctx, func() uint64 { return want - min(b.controlSent, want) })
}

// teardown closes what Open opened, waits for functions that run until ctx or
// b.handlers ends, and closes b.done.
func (b *Broker) teardown(ctx context.Context) error {
	var errs []error
	// The row is closed when nobody can renew it any more or take a new stream.
	b.stopRows()
	b.rowLoop.Wait()
	b.turning.Wait()
	if err := b.leave(ctx); err != nil {
		errs = append(errs, err)
	}
	b.stopLoops()
	for _, o := range b.outs {
		if err := o.link.Load().provider.Close(); err != nil {
			errs = append(errs, fmt.Errorf("carillon: close provider %q: %w", o.name, err))
		}
	}
	b.loops.Wait()
	<-b.hand.turn // a Raise may be sending
	b.hand.turn <- struct{}{}
	if err := b.handlersEnd(ctx); err != nil {
		errs = append(errs, err)
	}
	b.stopCall()
	b.logDropped()
	close(b.done)
	return errors.Join(errs...)
}

// leave closes the rows of this instance: the present one with the final mark, and
// those of which it is not clear whether they were ever made. A row that stays open is
// waited for by others, so as long as ctx lasts it gets as much time as any call.
func (b *Broker) leave(ctx context.Context) error {
	own := *b.own.Load()
	if len(own) == 0 {
		return nil
	}
	b.mu.Lock()
	var mark site.Mark
	if b.machine != nil {
		mark = b.machine.Mark()
	}
	b.mu.Unlock()
	limit := leaveWait
	if ctx.Err() == nil {
		limit = databaseTimeout
		if end, ok := ctx.Deadline(); ok {
			limit = max(leaveWait, min(limit, time.Until(end)))
		}
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), limit)
	defer cancel()
	self := b.self.Load().Stream
	for i := len(own) - 1; i >= 0; i-- {
		final := b.ended[own[i]]
		if own[i] == self {
			final = mark
		}
		if err := b.cfg.Database.Leave(ctx, own[i], final); err != nil {
			return fmt.Errorf("carillon: close the member row of stream %v: %w; it stays until its lease has lapsed", own[i], err)
		}
	}
	return nil
}

// handlersEnd waits until no function of the application runs.
func (b *Broker) handlersEnd(ctx context.Context) error {
	for {
		idle := b.running.idle()
		if idle == nil {
			return nil
		}
		select {
		case <-b.hard:
			return nil // whatever ctx says
		default:
		}
		select {
		case <-idle:
		case <-b.hard:
			return nil
		case <-ctx.Done():
			return fmt.Errorf("carillon: shut down: functions registered with events still run: %w", context.Cause(ctx))
		}
	}
}
