// Package provider defines what a transport must do to carry a site's events.
// Applications use package carillon; this package is for those who write
// transports. Package providertest checks every sentence of [Provider].
package provider

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"time"

	"github.com/carillon-go/carillon/site"
)

// A Provider carries opaque frames between the instances of a site. It does not
// sign, number, order, deduplicate or repair: the Broker does that once, the
// same way for every Provider.
//
// A Provider is started once and closed once. Between the two the Broker calls
// Send and SendTo from any goroutine, one call of each at a time, and the other methods from any.
//
// Frames are immutable from the moment they cross this interface, in either
// direction, for ever: nobody changes their bytes or reuses their memory, so
// both sides may keep references to them. The slice that holds a batch
// belongs to the caller and may be reused when the call returns.
type Provider interface {
	// Name is the short name that operators know the transport by: "tcp". It is
	// the key of [site.Member.Addresses] and a label in logs and counters, and
	// unique among the providers of one Broker.
	Name() string

	// Capabilities says what the transport guarantees. The answer never changes
	// during the Provider's life.
	Capabilities() Capabilities

	// Start connects and subscribes. When it returns nil, frames that others send from
	// now on arrive at env.Deliver, or are lost for reasons other than that
	// nobody was listening. A failed Start leaves nothing behind. ctx bounds
	// Start alone; when it has ended, Start fails with its error. After Close,
	// Start returns [ErrClosed].
	Start(ctx context.Context, env Env) error

	// Send hands the frames, in their order, to the transport for all other instances and
	// returns when it has accepted them, which is no promise that anybody
	// received them. One instance that is slow or gone does not hold up the
	// others. When the transport as a whole does not accept, the error
	// says so, and the Broker sends the same frames again later: some of
	// them may then arrive twice. Where another transport has carried them it may leave it at that. [ErrFrameTooLarge] and
	// [ErrClosed] are final.
	Send(ctx context.Context, frames [][]byte) error

	// Close stops the transport: no Deliver begins after it has returned, and it waits for
	// those that run and for the goroutines the Provider started. What Send had
	// accepted is flushed for at most a second. From then on, and for calls
	// already waiting, Send returns [ErrClosed]. Closing twice is fine.
	Close() error
}

// A Unicaster is a Provider that can reach one instance alone.
type Unicaster interface {
	Provider
	// SendTo is Send for one instance. [ErrUnreachable] means that
	// the transport knows no way to it just now; the Broker then sends to all.
	SendTo(ctx context.Context, to site.StreamID, frames [][]byte) error
}

// An Advertiser is a Provider that others must be told how to reach.
type Advertiser interface {
	Provider
	// Addresses returns what to write into this instance's member row. It is called
	// after Start, and the answer stays true until Close.
	Addresses() []string
}

// A Cleaner is an Advertiser whose instances have something at the service that
// stays there when they end without Close: a queue, a subscription. The Broker removes
// it once the site database says that the instance's lease has ended.
//
// What Addresses returns are the names of what this instance has there, so that its member
// row says whose a name is. Close removes them. While an instance runs, somebody may remove
// what it has: it then makes it again under the same name, and calls [Env.Reconnected].
//
// Both methods may be called before Start, on a Provider that is never started, and
// concurrently with all others. After Close they may return [ErrClosed].
type Cleaner interface {
	Advertiser
	// Subscriptions lists what instances of site s have at the service, whoever made it and
	// whether or not it is in use, each once, and nothing of any other site.
	Subscriptions(ctx context.Context, s site.ID) ([]Subscription, error)
	// Unsubscribe removes one of site s, with all that belongs to it and with what waits in it.
	// One that is gone already is no error.
	Unsubscribe(ctx context.Context, s site.ID, sub Subscription) error
}

// A Subscription is what one instance has at the service.
type Subscription struct {
	Name    string    // as in Addresses of its instance; compared as a whole, never as a prefix
	Created time.Time // by the service's clock; zero if it does not say
}

// A MemberWatcher is a Provider that wants to know who is there.
type MemberWatcher interface {
	Provider
	// SetMembers replaces what was said before. It is called after Start when the member
	// row of this instance is committed, before the first Send, and after every change; never
	// concurrently with itself. It must not block on the network.
	SetMembers(m Members)
}

// Members is who is there, as the site database says.
type Members struct {
	Self   site.StreamID // changes when this instance takes a new stream
	Others []site.Member // open rows of all sites accepted; read-only
}

// Capabilities are claims, each one checked by providertest. The zero value
// claims nothing and is always honest.
type Capabilities struct {
	MaxFrameBytes int  // largest frame Send accepts; 0 means no fixed limit
	Ordered       bool // frames of one sender arrive in the order sent, though some may be missing
	Redelivers    bool // a frame may arrive more than once in normal operation
	Echoes        bool // an instance also receives what it sent
	SecureChannel bool // outsiders can neither read nor write the channel; the operator must agree
	Durable       bool // frames survive a restart of the transport's own servers
	BackPressure  bool // Send blocks while receivers are slow, instead of dropping
	Prompt        bool // Send and SendTo wait neither for a receiver nor for another goroutine, so that who raises may send

	// IdleHeartbeat is how often an idle instance may speak where messages cost money. 0
	// leaves it to the Broker; negative means never. An event that is lost as the last one before silence is then
	// found by the marks in the member rows, within a third of a lease. Beside a Provider that
	// lets instances speak more often, this one still carries as little.
	IdleHeartbeat time.Duration

	// ReorderDelay is how long a frame may normally be overtaken by later ones. A gap is not
	// asked for earlier than this. 0 leaves it to the Broker.
	ReorderDelay time.Duration
}

// Batch is what arrived together.
type Batch struct {
	Frames [][]byte
	From   string // address as the transport gave it, for logs; it proves nothing

	// Done, if set, is called exactly once when every event of the batch is in its
	// subscribers' queues, or was dropped for a counted reason: the moment
	// to acknowledge a message to its message broker. It may be called before Deliver returns.
	// A provider goes on delivering while some are not called yet.
	Done func()
}

// Env is what the Broker gives a Provider at Start. All functions are safe for
// concurrent use from Start's call until Close returns.
type Env struct {
	Site  site.ID   // the site whose frames this instance sends
	Sites []site.ID // all sites whose frames it accepts, Site included

	// Route is the address under which other instances most likely reach this one: the local
	// end of its route to the site database. The zero Addr means unknown.
	Route netip.Addr

	Logger *slog.Logger // never nil

	// Deliver takes what arrived. It checks, and never waits for a subscriber. Batches of one
	// connection are delivered one after the other; different connections
	// may deliver concurrently.
	Deliver func(Batch)

	// Disconnected tells that the transport is away, and why: nothing is sent and nothing arrives until it has called
	// Reconnected. It may be called again for another reason. Operators see it at once, and not only when something is to be
	// sent; a Provider that knows no such state never calls it.
	Disconnected func(why error)

	// Reconnected tells that frames sent to this instance may have been lost
	// while the transport was away, though it is subscribed again.
	Reconnected func()

	// ReceiveBuffer tells how many bytes of frames the transport keeps for this instance while a
	// Deliver runs, each frame counted with [FrameCharge] more, before it drops what arrives.
	// Senders are then paced so that no more is on its way. A Provider of a transport on which senders can
	// be too fast calls it before Start returns, and again when the answer changes. Without a
	// call nobody is paced for this instance.
	ReceiveBuffer func(bytes int)

	// Keys proves and verifies for a connection's handshake. No key leaves it.
	Keys Keys
}

// FrameCharge is what a frame counts for in [Env.ReceiveBuffer] beside its own
// bytes. It covers what operating systems charge a socket for a datagram.
const FrameCharge = 1280

// Side says which end of a connection makes a proof, so that the proof of one
// end is never accepted from the other.
type Side uint8

const (
	_         Side = iota
	Initiator      // the end that dialled
	Acceptor       // the end that listened
)

// Keys makes and checks the proofs of a handshake with the site's keys. Both
// ends use the key that the initiator named.
type Keys interface {
	// Signing returns the key that this instance signs with.
	Signing() (site.ID, site.KeyID)

	// Prove returns a MAC over the handshake, the side and the transcript under the key named.
	// handshake is its name and version, as in "tcp v1", so that what one provider
	// proves is never taken for the proof of another.
	// [ErrKey] means that no such key may be used, or that its site is not accepted.
	Prove(s site.ID, k site.KeyID, handshake string, side Side, transcript []byte) ([32]byte, error)

	// Verify reports in constant time whether proof is what Prove returns on the
	// other end: nil, or [ErrKey], or [ErrProof].
	Verify(s site.ID, k site.KeyID, handshake string, side Side, transcript []byte, proof [32]byte) error
}

var (
	// ErrClosed is returned by Send and SendTo after Close.
	ErrClosed = errors.New("provider: closed")

	// ErrFrameTooLarge reports a frame above [Capabilities.MaxFrameBytes].
	ErrFrameTooLarge = errors.New("provider: frame too large")

	// ErrUnreachable is returned by SendTo when the transport knows no way to the instance.
	ErrUnreachable = errors.New("provider: instance not reachable")

	// ErrKey reports a key that is unknown, revoked, or of a site that is not accepted.
	ErrKey = errors.New("provider: no such key")

	// ErrProof reports a handshake proof that does not match.
	ErrProof = errors.New("provider: proof does not match")
)
