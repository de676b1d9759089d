package tcpbus

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"math"
	mathrand "math/rand/v2"
	"net"
	"net/netip"
	"syscall"
	"time"

	"github.com/carillon-go/carillon/provider"
	"github.com/carillon-go/carillon/site"
)

// hopeless is after how many failures in a row a peer counts as not reachable: Close no longer waits for it. That
// is logged when it has lasted for a while (limits.silence).
const hopeless = 3

// A target is somewhere to dial: a member at the addresses in its row, or one of
// Config.Endpoints. One goroutine per target keeps it connected.
type target struct {
	expected  site.StreamID // zero for an endpoint, which may lead to anybody
	addresses []string      // tried one after the other
	cancel    context.CancelFunc
	wake      chan struct{} // poked when there may be something to do

	// Guarded by the Provider's mu.
	leadsTo   site.StreamID // who answered last; expected, or zero for an endpoint before its first answer
	failures  int           // in a row; a connection that breaks at once is one as well
	since     time.Time     // when the first of them was
	told      bool          // that they are hopeless, in the log
	connected bool          // there was a connection before
	own       bool          // the attempt that runs has reached this instance itself
}

// startTargetLocked makes a target and its goroutine. p.mu is held, and p.state
// is stateStarted.
func (p *Provider) startTargetLocked(expected site.StreamID, addresses []string) *target {
	ctx, cancel := context.WithCancel(p.ctx)
	t := &target{expected: expected, addresses: addresses, cancel: cancel, wake: make(chan struct{}, 1), leadsTo: expected}
	p.tasks.Go(func() { p.keepConnected(ctx, t) })
	return t
}

// pokeTargetsLocked makes all targets look whether there is something to do. p.mu is held.
func (p *Provider) pokeTargetsLocked() {
	for _, t := range p.targets {
		poke(t.wake)
	}
	for _, pe := range p.peers {
		if pe.target != nil {
			poke(pe.target.wake)
		}
	}
}

// keepConnected dials t whenever its peer has no connection. It returns when ctx
// is done.
func (p *Provider) keepConnected(ctx context.Context, t *target) {
	for {
		need, pause := p.need(t)
		if !need {
			select {
			case <-t.wake:
				continue
			case <-ctx.Done():
				return
			}
		}
		if pause > 0 {
			timer := time.NewTimer(pause)
			select {
			case <-timer.C:
			case <-ctx.Done():
				timer.Stop()
				return
			}
			if need, _ = p.need(t); !need {
				continue // the other end was quicker
			}
		}
		err := p.dial(ctx, t)
		if ctx.Err() != nil {
			return
		}
		p.dialled(t, err)
	}
}

// need reports whether t is to be dialled, and how long from now.
func (p *Provider) need(t *target) (need bool, pause time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.turningLocked() {
		return false, 0
	}
	if t.leadsTo != (site.StreamID{}) {
		pe := p.peers[t.leadsTo]
		switch {
		case pe != nil && pe.cur != nil, p.proving[t.leadsTo]:
			return false, 0
		case p.state == stateClosing && (pe == nil || pe.queue.empty()):
			return false, 0
		}
	}
	switch {
	case t.failures > 0:
		d := p.lim.backoffMax
		if n := t.failures - 1; n < 16 {
			d = min(d, p.lim.backoffMin<<n)
		}
		return true, d/2 + mathrand.N(d/2+1)
	case t.connected:
		return true, mathrand.N(p.lim.backoffMin) // not all ends of a broken network at the same moment
	case bytes.Compare(p.self[:], t.expected[:]) < 0:
		// It came after us, knew us from its first look at the member rows, and dials at once. If it
		// cannot reach us, we may reach it.
		return true, p.lim.headStart
	}
	return true, 0
}

// dialled records how an attempt ended.
func (p *Provider) dialled(t *target, err error) {
	p.mu.Lock()
	defer p.unlock()
	if err == nil {
		t.connected = true
		return
	}
	if r, ok := errors.AsType[*refusal](err); ok && r.reason.quiet() {
		return // this end gave up for a reason of its own, and sees at the next look whether to go on
	}
	if t.own {
		t.failures = math.MaxInt // look again at times: a name may come to lead elsewhere
		return
	}
	t.failedLocked()
	poke(p.settled)
	if t.failures >= hopeless && !t.told && time.Since(t.since) >= p.lim.silence && p.state == stateStarted {
		t.told = true
		p.logLocked(slog.LevelWarn, "peer not reachable; going on trying", slog.Any(keyStream, t.leadsTo),
			slog.Any(keyAddress, t.addresses), slog.String(keyError, err.Error()))
	}
}

// connectionEndedLocked records that the connection to where t leads has ended, and
// whether it had lived for a while. p.mu is held.
func (t *target) connectionEndedLocked(stable bool) {
	t.connected = true
	if stable {
		t.failures, t.told = 0, false
	} else {
		t.failedLocked() // else a pair that disagrees would go round in circles
	}
	poke(t.wake)
}

// failedLocked counts a failure. p.mu is held.
func (t *target) failedLocked() {
	if t.failures == 0 {
		t.since = time.Now()
	}
	if t.failures < math.MaxInt {
		t.failures++
	}
}

// dial tries the addresses of t until one answers and proves itself.
func (p *Provider) dial(ctx context.Context, t *target) error {
	var errs []error
	for _, a := range t.addresses {
		err := p.dialAddress(ctx, t, a)
		if err == nil {
			return nil
		}
		p.mu.Lock()
		own := t.own
		p.mu.Unlock()
		if !own {
			p.refuse(a, true, err)
		}
		if r, ok := errors.AsType[*refusal](err); ok && r.reason.quiet() || own {
			return err
		}
		errs = append(errs, fmt.Errorf("%s: %w", a, err))
	}
	return errors.Join(errs...)
}

// dialAddress makes one connection. What it returns is a *refusal when there was
// a connection.
func (p *Provider) dialAddress(ctx context.Context, t *target, address string) error {
	dialer := net.Dialer{
		Timeout:         p.cfg.DialTimeout,
		KeepAliveConfig: p.keepAlive(),
		ControlContext: func(_ context.Context, _, resolved string, c syscall.RawConn) error {
			// After names were resolved, so that no name leads out of the networks allowed.
			if t.expected != (site.StreamID{}) {
				if ap, err := netip.ParseAddrPort(resolved); err != nil || !contains(p.networks, ap.Addr()) {
					return fmt.Errorf("%s is outside AllowNetworks, which allows %v", resolved, p.networks)
				}
			}
			return setUserTimeout(c, p.cfg.PeerTimeout)
		},
	}
	nc, err := p.dialWith(ctx, &dialer, address)
	if err != nil {
		return err
	}
	raw := nc.(*net.TCPConn)
	stop := context.AfterFunc(ctx, func() { raw.Close() })
	err = p.initiate(ctx, t, address, raw, stop)
	if err != nil {
		stop()
		raw.Close()
	}
	return err
}

// initiate is the handshake of the end that dialled. stop ends the watch over ctx
// and reports whether raw is still ours. With an error, the caller closes raw.
func (p *Provider) initiate(ctx context.Context, t *target, address string, raw *net.TCPConn, stop func() bool) error {
	raw.SetDeadline(time.Now().Add(p.cfg.HandshakeTimeout))
	stream, binding, err := p.clientTLS(ctx, raw, address)
	if err != nil {
		return err
	}
	ours, self := p.newHello(t)
	defer p.forgetDial(ours.nonce)
	first := ours.encode()
	if _, err := stream.Write(first); err != nil {
		return broken(err)
	}
	second, err := readMessage(stream, answerLen)
	if err != nil {
		return err
	}
	theirs, err := parseAnswer(second)
	switch {
	case errors.Is(err, errVersion):
		return refuse(ReasonVersion, err)
	case err != nil:
		return refuse(ReasonMalformed, err)
	case theirs.stream == self:
		return refusef(ReasonOwnStream, "stream %v is this instance's own", self)
	case t.expected != (site.StreamID{}) && theirs.stream != t.expected:
		return refusef(ReasonOtherStream, "stream %v answered, %v was expected", theirs.stream, t.expected)
	}
	seen := transcript(first, second, binding)
	proof, err := p.env.Keys.Prove(ours.site, ours.key, handshakeName, provider.Initiator, seen)
	if err != nil {
		return refuse(ReasonKey, fmt.Errorf("key %d of site %v: %w", ours.key, ours.site, err))
	}
	if err := p.beginProving(t, self, theirs.stream); err != nil {
		return err
	}
	err = p.exchangeProofs(stream, ours, seen, proof)
	return p.endProving(t, self, theirs.stream, raw, stream, stop, err)
}

// exchangeProofs sends proof and checks the one that comes back.
func (p *Provider) exchangeProofs(stream net.Conn, ours hello, seen []byte, proof [proofLen]byte) error {
	if _, err := stream.Write(proof[:]); err != nil {
		return broken(err)
	}
	b, err := readMessage(stream, proofLen)
	if err != nil {
		return err
	}
	if err := p.env.Keys.Verify(ours.site, ours.key, handshakeName, provider.Acceptor, append(seen, proof[:]...), [proofLen]byte(b)); err != nil {
		return refuse(ReasonProof, fmt.Errorf("what answered does not hold key %d of site %v: %w", ours.key, ours.site, err))
	}
	return nil
}

// newHello returns the first message for t and the stream that it names as ours.
func (p *Provider) newHello(t *target) (hello, site.StreamID) {
	h := hello{expected: t.expected}
	h.site, h.key = p.env.Keys.Signing()
	rand.Read(h.nonce[:])
	p.mu.Lock()
	defer p.mu.Unlock()
	h.stream = p.self
	t.own = false
	if t.expected == (site.StreamID{}) {
		p.dials[h.nonce] = t
	}
	return h, p.self
}

func (p *Provider) forgetDial(nonce [nonceLen]byte) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.dials, nonce)
}

// beginProving decides whether to send our proof to stream, which it may take
// as the start of a connection. From here to endProving, a
// connection that comes in from the same peer competes with ours.
//
// Two ends that dial each other settle on one connection before either carries
// a frame, so that none is lost or comes out of order when the other is closed:
//
//   - who has accepted a connection sends no proof on its own one;
//   - when both proofs are under way, the end with the smaller stream refuses the
//     other's, and the end with the larger stream lets the other's in.
//
// So at most one of the two is ever answered with the second proof, and one is,
// unless it breaks.
func (p *Provider) beginProving(t *target, self, stream site.StreamID) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	t.leadsTo = stream
	pe := p.peers[stream]
	switch {
	case p.self != self || p.state > stateClosing:
		return refusef(ReasonClosing, "this instance has taken another stream, or is closing")
	case pe != nil && pe.cur != nil, p.proving[stream]:
		return refusef(ReasonDuplicate, "there is a connection to %v already", stream)
	case p.gone.contains(stream): // at an endpoint; rows that are gone are not dialled
		return refusef(ReasonGone, "the member row of stream %v is gone", stream)
	}
	p.proving[stream] = true
	return nil
}

// endProving makes a connection of raw, unless err says that the other end did not
// prove itself.
func (p *Provider) endProving(t *target, self, stream site.StreamID, raw *net.TCPConn, conn net.Conn, stop func() bool, err error) error {
	p.mu.Lock()
	defer p.unlock()
	delete(p.proving, stream)
	p.pokeTargetsLocked() // an endpoint may lead to the same peer
	pe := p.peers[stream]
	if err != nil {
		// A refusal looks like an orderly end. Anything else may have hit a connection
		// that the other end took for made, and wrote frames to.
		if r, ok := errors.AsType[*refusal](err); pe != nil && ok && (r.reason == ReasonTimeout || r.reset) {
			pe.lost = true
		}
		return err
	}
	if !stop() || p.self != self || p.state > stateClosing {
		return refusef(ReasonClosing, "this instance has taken another stream, or is closing")
	}
	if pe == nil {
		pe = p.addPeerLocked(stream)
	}
	raw.SetDeadline(time.Time{})
	p.connectedLocked(p.newConnLocked(pe, raw, conn, true), nil)
	return nil
}

// clientTLS wraps raw in TLS, where configured, and returns what binds a proof to
// it.
func (p *Provider) clientTLS(ctx context.Context, raw *net.TCPConn, address string) (net.Conn, []byte, error) {
	if p.cfg.TLS == nil {
		return raw, nil, nil
	}
	cfg := p.cfg.TLS
	if cfg.ServerName == "" {
		host, _, err := net.SplitHostPort(address)
		if err != nil {
			return nil, nil, fmt.Errorf("tcp: address %q: %w", address, err)
		}
		cfg = cfg.Clone()
		cfg.ServerName = host
	}
	return secure(ctx, tls.Client(raw, cfg))
}

// secure completes a TLS handshake.
func secure(ctx context.Context, conn *tls.Conn) (net.Conn, []byte, error) {
	if err := conn.HandshakeContext(ctx); err != nil {
		if b := broken(err).(*refusal); b.reason == ReasonTimeout {
			return nil, nil, b
		}
		return nil, nil, refuse(ReasonTLS, err)
	}
	binding, err := exporter(conn)
	if err != nil {
		return nil, nil, refuse(ReasonTLS, err)
	}
	return conn, binding, nil
}

// keepAlive makes the kernel probe an idle connection so that a dead peer is noticed in
// PeerTimeout.
func (p *Provider) keepAlive() net.KeepAliveConfig {
	// The kernel counts in seconds.
	step := max(p.cfg.PeerTimeout/5, time.Second)
	return net.KeepAliveConfig{Enable: true, Idle: 2 * step, Interval: step, Count: 3}
}
