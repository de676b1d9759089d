package rabbitbus

import (
	"fmt"
	"sync"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/carillon-go/carillon/provider/uplink"
)

// An alarm is the server's word that it takes nothing for the time being, since it is short of memory or disk. It is safe for concurrent use.
type alarm struct {
	server *server

	mu     sync.Mutex // guards the fields below
	why    error      // nil while it is not raised
	closed chan struct{}
}

func newAlarm(s *server) *alarm { return &alarm{server: s, closed: make(chan struct{})} }

// follow raises a and lowers it as the server says, until c is closed.
func (a *alarm) follow(c <-chan amqp.Blocking) {
	for b := range c {
		a.set(b)
	}
}

func (a *alarm) set(b amqp.Blocking) {
	a.mu.Lock()
	defer a.mu.Unlock()
	was := a.why != nil
	switch {
	case b.Active:
		a.why = fmt.Errorf("rabbit: %s takes no messages: %s; free some, or change its vm_memory_high_watermark or disk_free_limit; it goes on by itself then", a.server, uplink.FirstLine(b.Reason))
		if !was {
			close(a.closed)
		}
	case was:
		a.why, a.closed = nil, make(chan struct{})
	}
}

// err returns what the alarm is about, or nil while it is not raised.
func (a *alarm) err() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.why
}

// raised returns a channel that is closed when the alarm is raised, or is already.
func (a *alarm) raised() <-chan struct{} {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.closed
}
