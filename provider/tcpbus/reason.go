package tcpbus

import (
	"errors"
	"fmt"
	"log/slog"
	"time"
)

// A Reason is why a connection was refused before any frame passed. The zero
// Reason is none. Values are part of the metrics contract: add at the end,
// never reuse.
type Reason uint8

const (
	_ Reason = iota
	// ReasonNetwork: the address lies outside [Config.AllowNetworks].
	ReasonNetwork
	// ReasonBusy: too many connections without a proof, in all or from this address.
	ReasonBusy
	// ReasonTimeout: the other end did not finish the handshake in time.
	ReasonTimeout
	// ReasonBroken: the other end closed the connection during the handshake. To who
	// dialled, that is what every refusal looks like.
	ReasonBroken
	// ReasonMalformed: what came is not this handshake. A port scan, another
	// program's port, or TLS on one side only.
	ReasonMalformed
	// ReasonVersion: the other end speaks another version of the handshake.
	ReasonVersion
	// ReasonTLS: the TLS handshake failed.
	ReasonTLS
	// ReasonSite: the other end belongs to a site that is not accepted here.
	ReasonSite
	// ReasonOwnStream: the other end is this instance, or says that it is. Normal, and not
	// logged, when Endpoints lists this instance; otherwise a cloned process.
	ReasonOwnStream
	// ReasonOtherStream: another instance is wanted than the one that answered: its address was
	// taken over after a restart, and the member rows will tell.
	ReasonOtherStream
	// ReasonKey: the site's key named is unknown here, or revoked.
	ReasonKey
	// ReasonProof: the other end does not hold the key that it named, or
	// somebody sits between.
	ReasonProof
	// ReasonDuplicate: the pair has, or is about to have, another connection. Normal when
	// both ends dial at once.
	ReasonDuplicate
	// ReasonClosing: this end is closing, or has taken a new stream meanwhile.
	ReasonClosing
	// ReasonGone: the other end's member row is closed or reaped. It will notice, and come
	// again with a new stream.
	ReasonGone

	reasonCount
)

func (r Reason) String() string {
	names := [...]string{
		ReasonNetwork: "network", ReasonBusy: "busy", ReasonTimeout: "timeout", ReasonBroken: "broken",
		ReasonMalformed: "malformed", ReasonVersion: "version", ReasonTLS: "tls", ReasonSite: "site",
		ReasonOwnStream: "own-stream", ReasonOtherStream: "other-stream", ReasonKey: "key", ReasonProof: "proof",
		ReasonDuplicate: "duplicate", ReasonClosing: "closing", ReasonGone: "gone",
	}
	if r > 0 && int(r) < len(names) {
		return names[r]
	}
	return fmt.Sprintf("Reason(%d)", uint8(r))
}

// quiet reports whether this end gave up for a reason of its own, in normal operation.
func (r Reason) quiet() bool { return r == ReasonDuplicate || r == ReasonClosing }

// level is what a refusal for r is logged at. A connection that only ends says
// little: a port scan, the other end of a duplicate, or a peer that refuses
// and logs why. When it goes on, "peer not reachable" says so.
func (r Reason) level() slog.Level {
	switch r {
	case ReasonDuplicate, ReasonClosing, ReasonBroken:
		return slog.LevelDebug
	case ReasonOtherStream, ReasonGone:
		return slog.LevelInfo
	}
	return slog.LevelWarn
}

// refusal is the error of a handshake that this end ended.
type refusal struct {
	reason Reason
	err    error
	reset  bool // the connection broke, other than by an orderly end
}

func (r *refusal) Error() string { return r.reason.String() + ": " + r.err.Error() }
func (r *refusal) Unwrap() error { return r.err }

func refuse(r Reason, err error) error { return &refusal{reason: r, err: err} }

func refusef(r Reason, format string, args ...any) error {
	return &refusal{reason: r, err: fmt.Errorf(format, args...)}
}

// refusals counts what was refused for one reason.
type refusals struct {
	count  uint64
	logged time.Time
}

// refuse counts err, if it is a refusal, and logs it once a second at most.
func (p *Provider) refuse(address string, dialled bool, err error) {
	r, ok := errors.AsType[*refusal](err)
	if !ok {
		return
	}
	p.mu.Lock()
	n := &p.refused[r.reason]
	n.count++
	count := n.count
	now := time.Now()
	say := now.Sub(n.logged) >= time.Second && p.state == stateStarted
	if say {
		n.logged = now
	}
	p.mu.Unlock()
	if say {
		p.log.LogAttrs(p.ctx, r.reason.level(), "connection refused", slog.String(keyReason, r.reason.String()), slog.String(keyAddress, address),
			slog.Bool(keyDialled, dialled), slog.Uint64(keyRefused, count), slog.String(keyError, r.err.Error()))
	}
}

// Refused returns how many connections were refused, by reason; reasons that
// did not occur are not there.
func (p *Provider) Refused() map[Reason]uint64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	counts := make(map[Reason]uint64)
	for r := range p.refused {
		if n := p.refused[r].count; n > 0 {
			counts[Reason(r)] = n
		}
	}
	return counts
}
