// Package system defines what the benchmark asks of one way to carry events
// from one process to several others.
package system

import (
	"context"
	"errors"
	"io"
)

// ErrMissing says that something a System needs is not on this machine, such as a server's program. The run
// then goes on without the System. Wrapped by the errors of Serve, Publish and Subscribe.
var ErrMissing = errors.New("not on this machine")

// A Spec is one run's setting, the same in every process of it.
type Spec struct {
	Dir         string // a folder of this run alone: sockets, databases, configuration
	Subscribers int
	Size        int // bytes of one event
}

// A System is one way to carry events. Its functions run in processes of their own: Serve in the
// benchmark's, the others in children of it.
type System struct {
	Name  string // stable, lower case: "nats", "nats-hmac", "nats-packed", "tcpbus", "limit-tcp-hmac"
	Title string // as tables show it, with version
	Note  string // settings and guarantees that differ from the default, and anything switched off

	// Window is how many events may be on their way to the slowest subscriber, for systems that would
	// lose events without it; kept by the harness through shared memory. 0: the system's own flow control.
	Window int

	// Serve starts what has to run beside publisher and subscribers (a message broker), on loopback, on a
	// port chosen free, with its files in s.Dir. Nil: nothing.
	Serve func(ctx context.Context, s Spec) (*Server, error)

	// Publish opens the publishing end. It runs before Subscribe. address is the Server's, or empty.
	Publish func(ctx context.Context, s Spec, address string) (Publisher, error)

	// Subscribe opens a subscribing end and returns when it is subscribed for sure. address is the Server's
	// or, without one, the Publisher's. deliver is called once per event, never concurrently; it
	// does not keep the slice.
	Subscribe func(ctx context.Context, s Spec, address string, deliver func(event []byte)) (io.Closer, error)
}

// A Server is what Serve started.
type Server struct {
	Address string
	Version string // of the product, where Title cannot know it; else empty
	PIDs    []int  // whose CPU and memory count, with all their descendants
	Stop    func() error
}

// A Publisher is the sending end. It is used by one goroutine.
type Publisher interface {
	Address() string                 // for subscribers, where there is no Server; else empty
	Ready(ctx context.Context) error // waits until all s.Subscribers are connected, where that can be known
	Publish(event []byte) error      // does not keep event; blocks as the system blocks
	Flush() error                    // hands over what is buffered; called at the end and, at open-loop rates, whenever the publisher falls idle
	Close() error
}

// A Reporter is a Publisher, or what Subscribe returned, that has something to say about the run when all
// its events have been received, before it is closed. It is optional.
type Reporter interface {
	// Report returns facts worth a footnote, such as frames that were repeated, and an error if the run
	// does not count, such as events that the system itself says it lost. Both may be empty.
	Report() (facts string, err error)
}
