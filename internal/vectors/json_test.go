package vectors

import (
	"encoding/hex"

	"github.com/carillon-go/carillon/internal/wire"
	"github.com/carillon-go/carillon/site"
)

// What internal/wire decodes, in the form of docs/vectors.md.

type object = map[string]any

func eventJSON(e wire.Event) object {
	return object{"event": hexID(e.ID), "raiser": hexID(e.Raiser), "order": e.Order, "payload": hex.EncodeToString(e.Payload)}
}

func hexID(id [16]byte) string { return hex.EncodeToString(id[:]) }

func markJSON(m site.Mark) object { return object{"frame": m.Frame, "next": m.Next} }

func rangeJSON(r wire.Range) object { return object{"first": r.First, "last": r.Last} }

func streamMarkJSON(m wire.StreamMark) object {
	return object{"stream": hexID(m.Stream), "mark": markJSON(m.Mark)}
}

func each[T any, J any](list []T, form func(T) J) []J {
	all := []J{}
	for _, e := range list {
		all = append(all, form(e))
	}
	return all
}

func bodyJSON(h wire.Header, body []byte) (object, error) {
	switch h.Type {
	case wire.TypeEvents:
		all := []object{}
		r := wire.ReadEvents(body, h.Count)
		for {
			var e wire.Event
			ok, err := r.Next(&e)
			if err != nil {
				return nil, err
			}
			if !ok {
				return object{"events": all}, nil
			}
			all = append(all, eventJSON(e))
		}
	case wire.TypeFragment:
		f, err := wire.ReadFragment(body, h.Count)
		return object{"index": f.Index, "total": f.Total, "size": f.Size, "chunk": hex.EncodeToString(f.Chunk)}, err
	}
	c, err := wire.ReadControl(h.Type, body)
	if err != nil {
		return nil, err
	}
	switch c := c.(type) {
	case wire.Heartbeat:
		return object{"mark": markJSON(c.Mark), "low": c.Low}, nil
	case wire.NAK:
		return object{"stream": hexID(c.Stream), "anyone": c.Anyone, "ranges": each(c.Ranges, rangeJSON)}, nil
	case wire.Gone:
		return object{
			"frames": rangeJSON(c.Frames), "first": c.FirstOrdinal, "next": c.NextOrdinal, "complete": c.Complete,
			"events": each(c.Events, func(e wire.EventCount) object { return object{"event": hexID(e.ID), "count": e.Count} }),
		}, nil
	case wire.Hello:
		return object{"nonce": hexID(c.Nonce), "streams": each(c.Streams, func(s site.StreamID) string { return hexID(s) })}, nil
	case wire.State:
		return object{"mark": markJSON(c.Mark), "nonces": each(c.Nonces, hexID), "others": each(c.Others, streamMarkJSON)}, nil
	case wire.ACK:
		return object{"entries": each(c.Entries, func(e wire.ACKEntry) object {
			return object{"stream": hexID(e.Stream), "mark": markJSON(e.Mark), "credit": e.Credit}
		})}, nil
	case wire.Bye:
		return object{"mark": markJSON(c.Mark)}, nil
	case wire.Reset:
		return object{"old": hexID(c.Old), "mark": markJSON(c.Mark), "doubtful": c.Doubtful}, nil
	case wire.Digest:
		return object{"entries": each(c.Entries, streamMarkJSON)}, nil
	case wire.Witness:
		return object{"to": hexID(c.To), "mine": hexID(c.Mine), "yours": hexID(c.Yours), "seen": c.Seen}, nil
	}
	panic("a control body that has no form here")
}
