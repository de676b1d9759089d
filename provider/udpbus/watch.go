package udpbus

import (
	"log/slog"
	"time"

	"github.com/carillon-go/carillon/provider"
)

// use makes l the link that Send uses, and reads from it. p.mu is held.
func (p *Provider) use(l *link) {
	p.link.Store(l)
	p.wg.Add(1) // of whichever goroutine reads last
	go p.newReader(l).run()
}

// suspectLink makes watch look at the interface at once.
func (p *Provider) suspectLink() {
	select {
	case p.suspect <- struct{}{}:
	default:
	}
}

// watch keeps the link on the interface that is wanted, until Close. An interface
// that went away and came back, or changed its address, has forgotten the groups we
// joined, so everything is opened again.
func (p *Provider) watch() {
	ticker := time.NewTicker(p.poll)
	defer ticker.Stop()
	said := "" // the last problem logged
	for {
		select {
		case <-p.ctx.Done():
			return
		case <-ticker.C:
		case <-p.suspect:
		}
		err := p.check()
		if p.ctx.Err() != nil {
			return
		}
		if err == nil {
			said = ""
		} else if said != err.Error() {
			said = err.Error()
			p.log.LogAttrs(p.ctx, slog.LevelWarn, "network interface away, waiting for it", slog.String(keyError, said))
		}
	}
}

// check compares the link with the interface as it is now, and mends what differs. An error says
// why there is no link.
func (p *Provider) check() error {
	where, err := p.choose()
	if l := p.link.Load(); l != nil {
		if err == nil && where == l.where {
			return nil
		}
		reason := err
		if reason == nil {
			reason = errAway // it changed; that takes a moment
		}
		p.away.Store(&reason)
		p.link.Store(nil)
		l.close()
		<-l.done // its last Deliver comes before the first of the next link
	}
	if err == nil {
		err = p.reopen(where)
	}
	if err != nil {
		p.away.Store(&err)
	}
	return err
}

// reopen opens a link where there was none, and tells the Broker.
func (p *Provider) reopen(where place) error {
	l, err := p.open(where)
	if err != nil {
		return err
	}
	p.mu.Lock()
	if p.state == stateClosed {
		p.mu.Unlock()
		l.close()
		return provider.ErrClosed
	}
	p.use(l)
	p.mu.Unlock()
	p.env.Reconnected()
	return nil
}
