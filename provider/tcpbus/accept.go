package tcpbus

import (
	"bytes"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"slices"
	"time"

	"github.com/carillon-go/carillon/provider"
	"github.com/carillon-go/carillon/site"
)

// errOwnDial ends a connection from this instance to itself. It is no refusal: an
// endpoint list may name this instance, and greeted has told the dial.
var errOwnDial = errors.New("tcp: this instance dialled itself")

// unproven holds the connections that came in and have not proved themselves. It is guarded
// by the Provider's mu.
type unproven map[*net.TCPConn]netip.Addr

// admit reports whether one more from this address may stay, and adds it.
func (u *unproven) admit(raw *net.TCPConn, from netip.Addr, l limits) bool {
	same := 0
	for _, a := range *u {
		if a == from {
			same++
		}
	}
	if len(*u) >= l.unproven || same >= l.unprovenPerAddress {
		return false
	}
	if *u == nil {
		*u = make(unproven)
	}
	(*u)[raw] = from
	return true
}

func (u unproven) closeAll() {
	for raw := range u {
		raw.Close()
	}
}

// acceptAll lets connections in until the listener is closed.
func (p *Provider) acceptAll() {
	for {
		nc, err := p.ln.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			// Too many open files, perhaps. It passes, or the log fills slowly.
			p.log.LogAttrs(p.ctx, slog.LevelError, "cannot accept connections", slog.String(keyError, err.Error()))
			timer := time.NewTimer(time.Second)
			select {
			case <-timer.C:
			case <-p.ctx.Done():
				timer.Stop()
			}
			continue
		}
		raw := nc.(*net.TCPConn)
		from := raw.RemoteAddr().(*net.TCPAddr).AddrPort().Addr().Unmap().WithZone("")
		if err := p.admit(raw, from); err != nil {
			raw.Close()
			p.refuse(nc.RemoteAddr().String(), false, err)
			continue
		}
		p.tasks.Go(func() {
			if err := p.receive(raw); err != nil {
				raw.Close()
				p.mu.Lock()
				delete(p.unproven, raw)
				p.mu.Unlock()
				p.refuse(nc.RemoteAddr().String(), false, err)
			}
		})
	}
}

// admit returns nil when raw may try to prove itself.
func (p *Provider) admit(raw *net.TCPConn, from netip.Addr) error {
	if !contains(p.networks, from) {
		return refusef(ReasonNetwork, "%s is outside AllowNetworks, which allows %v", from, p.networks)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.state != stateStarted {
		return refusef(ReasonClosing, "this instance is closing")
	}
	if !p.unproven.admit(raw, from, p.lim) {
		return refusef(ReasonBusy, "%d connections are being checked, at most %d are, and %d of one address", len(p.unproven), p.lim.unproven, p.lim.unprovenPerAddress)
	}
	return nil
}

// receive is the handshake of the end that listened. With an error, the caller
// closes raw; what came in has not been answered with more than the message that
// was due.
func (p *Provider) receive(raw *net.TCPConn) error {
	deadline := time.Now().Add(p.cfg.HandshakeTimeout)
	raw.SetDeadline(deadline)
	if err := p.awaitSelf(deadline); err != nil {
		return err
	}
	var stream net.Conn = raw
	var binding []byte
	if p.cfg.TLS != nil {
		var err error
		if stream, binding, err = secure(p.ctx, tls.Server(raw, p.cfg.TLS)); err != nil {
			return err
		}
	}
	first, err := readMessage(stream, helloLen)
	if err != nil {
		return err
	}
	theirs, err := parseHello(first)
	switch {
	case errors.Is(err, errVersion):
		return refuse(ReasonVersion, err)
	case err != nil:
		return refuse(ReasonMalformed, err)
	}
	self, newest, own := p.greeted(theirs.nonce)
	switch {
	case !slices.Contains(p.env.Sites, theirs.site):
		return refusef(ReasonSite, "site %v is not accepted here", theirs.site)
	case own:
		return errOwnDial
	case theirs.stream == self:
		return refusef(ReasonOwnStream, "stream %v is this instance's own", self)
	case theirs.expected != (site.StreamID{}) && theirs.expected != self:
		return refusef(ReasonOtherStream, "stream %v is wanted, this is %v", theirs.expected, self)
	}
	ours := answer{stream: self}
	rand.Read(ours.nonce[:])
	second := ours.encode()
	if _, err := stream.Write(second); err != nil {
		return broken(err)
	}
	proof, err := readMessage(stream, proofLen)
	if err != nil {
		return err
	}
	seen := transcript(first, second, binding)
	if err := p.env.Keys.Verify(theirs.site, theirs.key, handshakeName, provider.Initiator, seen, [proofLen]byte(proof)); err != nil {
		return refuse(proofReason(err), fmt.Errorf("key %d of site %v: %w", theirs.key, theirs.site, err))
	}
	reply, err := p.env.Keys.Prove(theirs.site, theirs.key, handshakeName, provider.Acceptor, append(seen, proof...))
	if err != nil {
		return refuse(ReasonKey, fmt.Errorf("key %d of site %v: %w", theirs.key, theirs.site, err))
	}
	return p.accepted(raw, stream, theirs.stream, self, newest, reply)
}

// awaitSelf returns nil when SetMembers has said who this instance is. A member that
// read our row may connect a little earlier.
func (p *Provider) awaitSelf(deadline time.Time) error {
	timer := time.NewTimer(time.Until(deadline))
	defer timer.Stop()
	select {
	case <-p.selfSet:
		return nil
	case <-timer.C:
		return refusef(ReasonTimeout, "SetMembers has not said yet who this instance is")
	case <-p.ctx.Done():
		return refusef(ReasonClosing, "this instance is closing")
	}
}

// greeted returns our stream and the number of the newest connection, as of now. own says
// that the hello with this nonce came from this instance, and tells the target.
func (p *Provider) greeted(nonce [nonceLen]byte) (self site.StreamID, newest uint64, own bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	t := p.dials[nonce]
	if t != nil {
		t.own = true
	}
	return p.self, p.lastConn, t != nil
}

// accepted makes a connection of raw, whose other end has proved to be an instance
// with this stream, or says why not; then it is closed without the second
// proof, which the other end takes as no connection. self and newest are what greeted
// returned.
func (p *Provider) accepted(raw *net.TCPConn, conn net.Conn, stream, self site.StreamID, newest uint64, reply [proofLen]byte) error {
	p.mu.Lock()
	defer p.unlock()
	if p.self != self || p.state != stateStarted {
		return refusef(ReasonClosing, "this instance has taken another stream, or is closing")
	}
	pe := p.peers[stream]
	switch {
	case p.turningLocked():
		return refusef(ReasonClosing, "connections under the stream before %v are not closed yet", self)
	case p.gone.contains(stream):
		return refusef(ReasonGone, "the member row of stream %v is gone", stream)
	case pe != nil && pe.cur != nil && pe.cur.number > newest:
		// Made since the other end's hello: it may have been under way on both sides, and that one
		// is the one that stays. A connection older than the hello is dead
		// at the other end, which dials only when it has none.
		return refusef(ReasonDuplicate, "another connection to %v was made meanwhile", stream)
	case p.proving[stream] && bytes.Compare(self[:], stream[:]) < 0:
		return refusef(ReasonDuplicate, "our own connection to %v is under way", stream)
	}
	if pe == nil {
		if p.unlistedLocked() >= p.lim.unlisted {
			return refusef(ReasonBusy, "%d peers without a member row are connected", p.lim.unlisted)
		}
		pe = p.addPeerLocked(stream)
	}
	delete(p.unproven, raw)
	raw.SetDeadline(time.Time{})
	// From here on Send reaches the peer: it is known before it hears that it is.
	p.connectedLocked(p.newConnLocked(pe, raw, conn, false), reply[:])
	return nil
}

func (p *Provider) unlistedLocked() int {
	n := 0
	for _, pe := range p.peers {
		if !pe.listed {
			n++
		}
	}
	return n
}

// readMessage reads the n bytes of a message.
func readMessage(r io.Reader, n int) ([]byte, error) {
	b := make([]byte, n)
	if got, err := io.ReadFull(r, b); err != nil {
		if got > 0 && errors.Is(err, io.ErrUnexpectedEOF) {
			return nil, refusef(ReasonMalformed, "the other end closed the connection after %d of %d bytes", got, n)
		}
		return nil, broken(err)
	}
	return b, nil
}

// broken turns an error of reading or writing during the handshake into a
// refusal.
func broken(err error) error {
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		return refuse(ReasonTimeout, err)
	case errors.Is(err, net.ErrClosed):
		return refuse(ReasonClosing, err)
	case errors.Is(err, io.EOF):
		return refusef(ReasonBroken, "the other end closed the connection; its log says why: its site, keys, AllowNetworks or TLS may differ")
	}
	return &refusal{reason: ReasonBroken, err: err, reset: true}
}

// proofReason tells a wrong proof from an unusable key.
func proofReason(err error) Reason {
	if errors.Is(err, provider.ErrKey) {
		return ReasonKey
	}
	return ReasonProof
}
