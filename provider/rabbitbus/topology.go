package rabbitbus

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"strings"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/carillon-go/carillon/site"
)

const (
	keyAll   = "all"   // of what is sent to all instances of a site
	keyProbe = "probe" // of what is sent to nobody
	consumer = "carillon"

	inUseFor  = time.Second           // how long another connection may still have our queue
	lookAgain = 20 * time.Millisecond // whether it still has
)

// keyOne is the key of what is sent to one instance alone.
func keyOne(stream site.StreamID) string { return "to." + stream.String() }

// A binding is what a queue gets: what is sent to an exchange with a key.
type binding struct{ exchange, key string }

// exchange is what a site's frames are sent to.
func (p *Provider) exchange(s site.ID) string { return p.cfg.Prefix + "." + s.String() }

// newQueue returns the name of a queue that nobody has.
func (p *Provider) newQueue(s site.ID) string {
	var b [16]byte
	rand.Read(b[:])
	return p.exchange(s) + "." + hex.EncodeToString(b[:])
}

// declareExchanges makes sure that the exchanges of all sites are there.
func (l *link) declareExchanges() (err error) {
	if l.rpc, err = l.in.Channel(); err != nil {
		return err
	}
	l.rpcEnds = l.rpc.NotifyClose(make(chan *amqp.Error, 1))
	for _, s := range l.env.Sites {
		if err := l.declareExchange(l.provider.exchange(s)); err != nil {
			return err
		}
	}
	return nil
}

// declareExchange makes an exchange unless it is there. It is never deleted by itself, as somebody may be about to bind to it.
func (l *link) declareExchange(exchange string) error {
	return l.rpc.ExchangeDeclare(exchange, amqp.ExchangeDirect, true, false, false, false, nil)
}

// listen gives l a queue and returns what arrives in it. To have that of the link before saves what has waited in it. Whatever is wrong with that one (its
// node of a cluster is down, it has crashed, a copy of this process has it), the next attempt is for another one.
func (l *link) listen(ctx context.Context) (deliveries <-chan amqp.Delivery, err error) {
	queue := l.provider.queue
	if queue == "" {
		queue = l.provider.newQueue(l.env.Site)
	}
	l.provider.queue = ""
	if err = l.declareQueue(queue); err == nil {
		deliveries, err = l.subscribe(ctx)
	}
	if err != nil {
		// Best effort, and not if another connection has it; it expires. The failure has ended the channel.
		if ch, err := l.in.Channel(); err == nil {
			ch.QueueDelete(queue, true, false, false)
		}
		return nil, err
	}
	l.provider.queue = queue
	return deliveries, nil
}

// declareQueue makes the queue unless it is there, and binds it. It is durable so that it is there
// as soon as a server that was restarted takes frames, whoever is back first.
func (l *link) declareQueue(queue string) error {
	cfg := l.provider.cfg
	if _, err := l.rpc.QueueDeclare(queue, true, false, false, false, amqp.Table{
		amqp.QueueTypeArg:        amqp.QueueTypeClassic, // whatever the virtual host has for its default
		amqp.QueueTTLArg:         cfg.QueueExpiry.Milliseconds(),
		amqp.QueueMaxLenBytesArg: int64(cfg.QueueBytes),
		amqp.QueueOverflowArg:    amqp.QueueOverflowDropHead,
	}); err != nil {
		return err
	}
	l.queue = queue
	for _, s := range l.env.Sites {
		if err := l.bind(binding{l.provider.exchange(s), keyAll}); err != nil {
			return err
		}
	}
	return l.join()
}

// bind binds the queue, unless this link has done so.
func (l *link) bind(b binding) error {
	if l.bound[b] {
		return nil
	}
	if err := l.rpc.QueueBind(l.queue, b.key, b.exchange, false, nil); err != nil {
		return err
	}
	l.bound[b] = true
	return nil
}

// join binds the queue to what SetMembers has told of: what is sent to this instance alone, and the exchange of every site
// whose instances have turned up. An earlier stream's binding goes, so that who sends to that stream hears that nobody has it.
func (l *link) join() error {
	m := l.provider.members.Load()
	if m == nil {
		return nil
	}
	own := binding{l.provider.exchange(l.env.Site), keyOne(m.self)}
	if err := l.bind(own); err != nil {
		return err
	}
	for b := range l.bound {
		if b.key == keyAll || b == own {
			continue
		}
		if err := l.rpc.QueueUnbind(l.queue, b.key, b.exchange, nil); err != nil {
			return err
		}
		delete(l.bound, b)
	}
	for _, s := range m.foreign {
		b := binding{l.provider.exchange(s), keyAll}
		if l.bound[b] {
			continue
		}
		if err := l.declareExchange(b.exchange); err != nil {
			return err
		}
		if err := l.bind(b); err != nil {
			return err
		}
	}
	return nil
}

// follow calls join whenever there is something new, until l ends.
func (l *link) follow() {
	for {
		select {
		case <-l.provider.changed:
			if err := l.join(); err != nil {
				l.fail(l.explain(subscribing, err))
				return
			}
		case <-l.ctx.Done():
			return
		}
	}
}

// subscribe makes the server send what is in the queue, to nobody but us. It refuses until it has noticed that the connection before is
// gone, for which it gets some time.
func (l *link) subscribe(ctx context.Context) (<-chan amqp.Delivery, error) {
	for began := time.Now(); ; {
		var err error
		if l.consume, err = l.in.Channel(); err != nil {
			return nil, err
		}
		l.consumeEnds = l.consume.NotifyClose(make(chan *amqp.Error, 1))
		l.cancelled = l.consume.NotifyCancel(make(chan string, 1))
		if err := l.consume.Qos(l.provider.cfg.prefetch(), 0, false); err != nil {
			return nil, err
		}
		deliveries, err := l.consume.Consume(l.queue, consumer, false, true, false, false, nil)
		if err == nil || !isInUse(err) || time.Since(began) >= inUseFor {
			return deliveries, err
		}
		pause := time.NewTimer(lookAgain)
		select {
		case <-pause.C:
		case <-ctx.Done():
			pause.Stop()
			return nil, ctx.Err()
		}
	}
}

// isInUse reports whether err is the server's refusal of a queue that another connection has.
func isInUse(err error) bool {
	e, ok := errors.AsType[*amqp.Error](err)
	return ok && e.Server && e.Code == amqp.AccessRefused && strings.Contains(e.Reason, "exclusive")
}
