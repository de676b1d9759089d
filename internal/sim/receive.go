package sim

import (
	"errors"
	"slices"

	"github.com/carillon-go/carillon/internal/engine"
	"github.com/carillon-go/carillon/internal/seal"
	"github.com/carillon-go/carillon/internal/wire"
)

// An incoming is a frame that waits to be read.
type incoming struct{ frame []byte }

// arrive takes a frame from a network.
func (in *instance) arrive(frame []byte) {
	switch {
	case in.dead:
	case in.frozen:
		if len(in.socket) < maxSocket {
			in.socket = append(in.socket, incoming{frame})
		}
	default:
		in.receive(frame)
	}
}

// receive checks a frame in the same order as package carillon, and gives it to
// the machine.
func (in *instance) receive(frame []byte) {
	in.w.stats.Arrived++
	h, err := wire.ParseHeader(frame)
	switch {
	case err != nil:
		in.drop("malformed")
		return
	case !in.keys.accepts(h.Site):
		in.drop("foreign-site")
		return
	case in.machine == nil:
		in.drop("before-baseline")
		return
	}
	own := h.Stream == in.self
	switch {
	case own && in.machine.Echo(h, frame), !own && slices.Contains(in.own, h.Stream):
		in.drop("own")
		return
	}
	if v := in.machine.Precheck(h); !own && v != engine.Accepted {
		in.machine.Drop(v)
		return
	}
	body, err := in.unseal(&h, frame)
	if err != nil {
		in.refuse(err)
		return
	}
	in.w.mixFrame(in, &h, body)
	in.w.traceArrived(in, h, body)
	in.w.tally.takes(in, &h, in.w.now)
	in.tellRoom()
	if own {
		in.machine.Own(h, frame, &in.fx)
	} else {
		in.machine.Receive(in.w.clock(), h, frame, body, &in.fx)
	}
	in.effects()
}

// unseal checks the tag of a frame and returns its body in the clear. Where nobody seals,
// every frame is taken for one under HMAC.
func (in *instance) unseal(h *wire.Header, frame []byte) ([]byte, error) {
	if in.w.unsealed {
		return frame[wire.HeaderLen : len(frame)-in.sealers[0].Trailer()], nil
	}
	return in.opener.Open(h.Site, h.Key, h.Stream, frame)
}

func (in *instance) refuse(err error) {
	switch {
	case errors.Is(err, seal.ErrTag):
		in.drop("bad-tag")
	case errors.Is(err, seal.ErrUnknownKey):
		in.drop("unknown-key")
		in.keyWanted()
	case errors.Is(err, seal.ErrRevoked):
		in.drop("retired-key")
	default:
		in.drop("other")
	}
}

func (in *instance) drop(why string) {
	in.w.stats.Dropped[why]++
	in.w.mixText(in.name, why)
}
