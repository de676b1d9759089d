// Package emulator is a small stand-in for Azure Service Bus, in memory and on the loopback interface: topics and subscriptions with rules, over AMQP 1.0
// as the Azure SDK speaks it, and the administration of them. It is for tests and demonstrations of package azurebus. It
// knows what azurebus and the SDK ask for, not more, and is no measure of what the service itself does: peek-lock with locks that run out,
// time to live, deletion when idle, rules with a SQL filter over texts, rights, and faults on demand.
//
// What it keeps outlives Kill and Start, as what the service has accepted outlives a restart there.
package emulator

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"
)

// Options say how an Emulator differs from the Standard tier.
type Options struct {
	MaxMessageBytes int           // of a message and of a batch; 0 means 256 KiB
	LockDuration    time.Duration // of every lock, whatever a subscription wants; 0: what it wants
	TLS             bool          // as with an identity, which the SDK uses over TLS alone
}

// An Emulator is one namespace. It is safe for concurrent use.
type Emulator struct {
	options     Options
	certificate tls.Certificate
	amqp, admin string // addresses, the same after a restart

	lifecycle sync.Mutex     // held by Start, Kill and Close
	tasks     sync.WaitGroup // of what Start began
	listeners []net.Listener
	done      chan struct{} // closed by Kill

	mu         sync.Mutex // guards everything below, and what it refers to; not held while waiting
	down       bool
	conns      map[*conn]bool
	topics     map[string]*topic // by name in lower case
	keys       map[string]credential
	throttled  bool
	quota      int
	offset     time.Duration // of the clock
	operations Operations
}

// Operations counts what clients have done, as far as it is charged for, or costs something.
type Operations struct {
	Sends      int // messages and batches accepted
	Deliveries int // messages handed to receivers
	Completes  int
	Released   int // deliveries given back
	Wasted     int // units of these
	Peeks      int
	Tokens     int // proofs of identity
	Admin      int // requests to the administration
	Throttled  int // sends refused
	Units      int // of the above: each 64 KiB of a message sent or delivered, completes, peeks and administration
}

// The key that an Emulator has from the start, with all rights.
const (
	KeyName = "RootManageSharedAccessKey"
	Key     = "c2VjcmV0LW9mLXRoZS1lbXVsYXRvcg=="
)

// New starts an Emulator at ports chosen by the system.
func New(o Options) (*Emulator, error) {
	if o.MaxMessageBytes == 0 {
		o.MaxMessageBytes = 256 << 10
	}
	e := &Emulator{
		options: o, amqp: "127.0.0.1:0", admin: "127.0.0.1:0", conns: make(map[*conn]bool), topics: make(map[string]*topic),
		keys: map[string]credential{KeyName: {Key, All}}, down: true,
	}
	if o.TLS {
		if err := e.certify(); err != nil {
			return nil, err
		}
	}
	return e, e.Start()
}

// certify makes a certificate for 127.0.0.1.
func (e *Emulator) certify() error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		return err
	}
	leaf, err := x509.ParseCertificate(der)
	e.certificate = tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}
	return err
}

// Start lets clients in again after Kill.
func (e *Emulator) Start() error {
	e.lifecycle.Lock()
	defer e.lifecycle.Unlock()
	if len(e.listeners) > 0 {
		return nil
	}
	amqp, err := net.Listen("tcp", e.amqp)
	if err != nil {
		return err
	}
	admin, err := net.Listen("tcp", e.admin)
	if err != nil {
		amqp.Close()
		return err
	}
	e.amqp, e.admin = amqp.Addr().String(), admin.Addr().String()
	e.listeners = []net.Listener{amqp, admin}
	e.done = make(chan struct{})
	e.mu.Lock()
	e.down = false
	e.mu.Unlock()
	clients := amqp
	if e.options.TLS {
		clients = tls.NewListener(amqp, &tls.Config{Certificates: []tls.Certificate{e.certificate}})
	}
	e.tasks.Go(func() {
		for {
			nc, err := clients.Accept()
			if err != nil {
				return
			}
			e.tasks.Go(func() { e.serve(nc) })
		}
	})
	server := &http.Server{Handler: e, ReadHeaderTimeout: time.Second}
	server.SetKeepAlivesEnabled(false)
	e.tasks.Go(func() { server.Serve(admin) })
	done := e.done
	e.tasks.Go(func() {
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				e.mu.Lock()
				e.sweep()
				e.mu.Unlock()
			case <-done:
				server.Close()
				return
			}
		}
	})
	return nil
}

// Kill ends all connections in the middle of whatever they carry, and lets nobody in. What was accepted is kept.
func (e *Emulator) Kill() {
	e.lifecycle.Lock()
	defer e.lifecycle.Unlock()
	if len(e.listeners) == 0 {
		return
	}
	for _, l := range e.listeners {
		l.Close()
	}
	e.listeners = nil
	close(e.done)
	e.mu.Lock()
	e.down = true
	e.mu.Unlock()
	e.Cut()
	e.tasks.Wait()
}

// Restart is Kill and Start.
func (e *Emulator) Restart() error {
	e.Kill()
	return e.Start()
}

// Close is Kill for good.
func (e *Emulator) Close() { e.Kill() }

// Cut ends all connections.
func (e *Emulator) Cut() {
	e.mu.Lock()
	defer e.mu.Unlock()
	for c := range e.conns {
		c.net.Close()
	}
}

// admit takes a connection, unless the emulator is down.
func (e *Emulator) admit(c *conn) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	if !e.down {
		e.conns[c] = true
	}
	return !e.down
}

func (e *Emulator) leave(c *conn) {
	e.mu.Lock()
	defer e.mu.Unlock()
	delete(e.conns, c)
	for _, s := range c.sessions {
		s.end()
	}
}

func (e *Emulator) now() time.Time { return time.Now().Add(e.offset) }

// Addr returns where AMQP is spoken, as host:port.
func (e *Emulator) Addr() string { return e.amqp }

// Connections returns how many there are.
func (e *Emulator) Connections() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return len(e.conns)
}

// ConnectionString returns what a client is configured with to use the key that there is from the start.
func (e *Emulator) ConnectionString() string { return e.ConnectionStringOf(e.amqp, KeyName, Key) }

// ConnectionStringOf is ConnectionString for a key of that name, over another address, such as that of a relay.
func (e *Emulator) ConnectionStringOf(addr, name, secret string) string {
	return fmt.Sprintf("Endpoint=sb://%s;SharedAccessKeyName=%s;SharedAccessKey=%s;UseDevelopmentEmulator=true", addr, name, secret)
}

// Roots returns who vouches for an Emulator with TLS.
func (e *Emulator) Roots() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(e.certificate.Leaf)
	return pool
}

// Administration returns what leads requests of the administration client here, whatever host they are for.
func (e *Emulator) Administration() *http.Client {
	return &http.Client{Transport: redirect{e, &http.Transport{DisableKeepAlives: true}}}
}

type redirect struct {
	e  *Emulator
	to http.RoundTripper
}

func (r redirect) RoundTrip(req *http.Request) (*http.Response, error) {
	req = req.Clone(req.Context())
	req.URL.Scheme, req.URL.Host = "http", r.e.admin
	return r.to.RoundTrip(req)
}

// Grant adds a key, or changes what one may do. Who has lost a right loses the links that need it.
func (e *Emulator) Grant(name, secret string, rights Rights) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.keys[name] = credential{secret, rights}
	for c := range e.conns {
		if c.key != name {
			continue
		}
		for _, s := range c.sessions {
			for _, l := range s.links {
				if l.topic != nil && rights&Send == 0 || l.sub != nil && rights&Listen == 0 {
					l.detach(fault("amqp:unauthorized-access", "Unauthorized access. The token has lost a claim."))
				}
			}
		}
	}
}

// GrantToken is Grant for the token of an identity.
func (e *Emulator) GrantToken(token string, rights Rights) { e.Grant(bearer+token, "", rights) }

// Throttle makes the service too busy for messages, or no longer.
func (e *Emulator) Throttle(on bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.throttled = on
}

// Quota bounds how many bytes each topic keeps; 0 is no bound.
func (e *Emulator) Quota(bytes int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.quota = bytes
}

// Disable disables all topics, or enables them again.
func (e *Emulator) Disable(on bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, t := range e.topics {
		t.disabled = on
		if !on {
			continue
		}
		for c := range e.conns {
			for _, s := range c.sessions {
				for _, l := range s.links {
					if l.topic != nil || l.sub != nil {
						l.detach(fault("com.microsoft:entity-disabled", "Messaging entity is currently disabled."))
					}
				}
			}
		}
	}
}

// Advance moves the clock: locks, messages and idle subscriptions run out.
func (e *Emulator) Advance(d time.Duration) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.offset += d
	e.sweep()
}

// DetachSenders ends the links of those that send, as the service does with links that were idle for ten minutes.
func (e *Emulator) DetachSenders() { e.detach(true) }

// DetachReceivers is DetachSenders for those that receive.
func (e *Emulator) DetachReceivers() { e.detach(false) }

func (e *Emulator) detach(senders bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for c := range e.conns {
		for _, s := range c.sessions {
			for _, l := range s.links {
				if senders && l.topic != nil || !senders && l.sub != nil {
					l.detach(fault("amqp:link:detach-forced", "The link is force detached. Idle timeout: 00:10:00."))
				}
			}
		}
	}
}

// Remove deletes the subscription of that name from every topic.
func (e *Emulator) Remove(subscription string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, t := range e.topics {
		if s := t.subs[strings.ToLower(subscription)]; s != nil {
			e.remove(s)
		}
	}
}

// Subscriptions returns the names of a topic's subscriptions, in no order.
func (e *Emulator) Subscriptions(topic string) (names []string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if t := e.topics[strings.ToLower(topic)]; t != nil {
		for _, s := range t.subs {
			names = append(names, s.name)
		}
	}
	return names
}

// Topics returns the names of all topics, in no order.
func (e *Emulator) Topics() (names []string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, t := range e.topics {
		names = append(names, t.name)
	}
	return names
}

// Kept returns how many messages a subscription has, and how many of them are locked.
func (e *Emulator) Kept(topic, subscription string) (messages, locked int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if _, s := e.find(topic + "/subscriptions/" + subscription); s != nil {
		return len(s.waiting) + len(s.locked), len(s.locked)
	}
	return 0, 0
}

// Operations returns what clients have done so far.
func (e *Emulator) Operations() Operations {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.operations
}
