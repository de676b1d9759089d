package wire

import (
	"encoding/binary"

	"github.com/carillon-go/carillon/site"
)

// The fewest bytes that one entry of a list takes, so that a stated length can
// be held against the bytes left before anything is allocated.
const (
	idLen            = 16
	minRangeLen      = 1 + 1
	minStreamMarkLen = idLen + 1 + 1
	minACKEntryLen   = idLen + 1 + 1 + 1
	minEventCountLen = idLen + 1
)

// ReadControl decodes the body of a control frame of type t. [ErrType] means
// that t is none.
func ReadControl(t Type, body []byte) (Control, error) {
	switch t {
	case TypeHeartbeat:
		return control(ReadHeartbeat(body))
	case TypeNAK:
		return control(ReadNAK(body))
	case TypeGone:
		return control(ReadGone(body))
	case TypeHello:
		return control(ReadHello(body))
	case TypeState:
		return control(ReadState(body))
	case TypeACK:
		return control(ReadACK(body))
	case TypeBye:
		return control(ReadBye(body))
	case TypeReset:
		return control(ReadReset(body))
	case TypeDigest:
		return control(ReadDigest(body))
	case TypeWitness:
		return control(ReadWitness(body))
	default:
		return nil, ErrType
	}
}

func control[C Control](c C, err error) (Control, error) {
	if err != nil {
		return nil, err
	}
	return c, nil
}

// Append implements [Control].
func (h Heartbeat) Append(dst []byte) []byte {
	return binary.AppendUvarint(appendMark(dst, h.Mark), h.Low)
}

// ReadHeartbeat decodes what [Heartbeat.Append] encodes.
func ReadHeartbeat(body []byte) (Heartbeat, error) {
	c := cursor{b: body}
	h := Heartbeat{Mark: c.mark(), Low: c.uvarint(MaxNumber)}
	if err := c.end(); err != nil {
		return Heartbeat{}, err
	}
	return h, nil
}

// Append implements [Control].
func (n NAK) Append(dst []byte) []byte {
	dst = appendFlag(append(dst, n.Stream[:]...), n.Anyone)
	dst = binary.AppendUvarint(dst, uint64(len(n.Ranges)))
	for _, r := range n.Ranges {
		dst = appendRange(dst, r)
	}
	return dst
}

// ReadNAK decodes what [NAK.Append] encodes.
func ReadNAK(body []byte) (NAK, error) {
	c := cursor{b: body}
	n := NAK{Stream: c.id(), Anyone: c.flag()}
	last := uint64(0)
	n.Ranges = list(&c, MaxRanges, minRangeLen, func() Range {
		r := c.frames(last)
		last = r.Last
		return r
	})
	if len(n.Ranges) == 0 {
		c.fail(errListLen)
	}
	if err := c.end(); err != nil {
		return NAK{}, err
	}
	return n, nil
}

// Append implements [Control].
func (g Gone) Append(dst []byte) []byte {
	dst = appendRange(dst, g.Frames)
	dst = binary.AppendUvarint(dst, g.FirstOrdinal)
	dst = binary.AppendUvarint(dst, g.NextOrdinal)
	dst = binary.AppendUvarint(dst, uint64(len(g.Events)))
	for _, e := range g.Events {
		dst = binary.AppendUvarint(append(dst, e.ID[:]...), e.Count)
	}
	return appendFlag(dst, g.Complete)
}

// ReadGone decodes what [Gone.Append] encodes.
func ReadGone(body []byte) (Gone, error) {
	c := cursor{b: body}
	g := Gone{
		Frames:       c.frames(0),
		FirstOrdinal: c.uvarint(MaxNumber),
		NextOrdinal:  c.uvarint(MaxNumber),
	}
	if g.FirstOrdinal > g.NextOrdinal {
		c.fail(errRange)
	}
	g.Events = list(&c, MaxList, minEventCountLen, func() EventCount {
		e := EventCount{ID: c.id(), Count: c.uvarint(MaxNumber)}
		if e.Count == 0 {
			c.fail(errCount)
		}
		return e
	})
	g.Complete = c.flag()
	if err := c.end(); err != nil {
		return Gone{}, err
	}
	return g, nil
}

// Append implements [Control].
func (h Hello) Append(dst []byte) []byte {
	dst = append(dst, h.Nonce[:]...)
	dst = binary.AppendUvarint(dst, uint64(len(h.Streams)))
	for _, s := range h.Streams {
		dst = append(dst, s[:]...)
	}
	return dst
}

// ReadHello decodes what [Hello.Append] encodes.
func ReadHello(body []byte) (Hello, error) {
	c := cursor{b: body}
	h := Hello{Nonce: c.id()}
	h.Streams = list(&c, MaxList, idLen, func() site.StreamID { return c.id() })
	if err := c.end(); err != nil {
		return Hello{}, err
	}
	return h, nil
}

// Append implements [Control].
func (s State) Append(dst []byte) []byte {
	dst = appendMark(dst, s.Mark)
	dst = binary.AppendUvarint(dst, uint64(len(s.Nonces)))
	for _, n := range s.Nonces {
		dst = append(dst, n[:]...)
	}
	return appendStreamMarks(dst, s.Others)
}

// ReadState decodes what [State.Append] encodes.
func ReadState(body []byte) (State, error) {
	c := cursor{b: body}
	s := State{Mark: c.mark()}
	s.Nonces = list(&c, MaxList, idLen, c.id)
	s.Others = c.streamMarks()
	if err := c.end(); err != nil {
		return State{}, err
	}
	return s, nil
}

// Append implements [Control].
func (a ACK) Append(dst []byte) []byte {
	dst = binary.AppendUvarint(dst, uint64(len(a.Entries)))
	for _, e := range a.Entries {
		dst = appendMark(append(dst, e.Stream[:]...), e.Mark)
		dst = binary.AppendUvarint(dst, e.Credit)
	}
	return dst
}

// ReadACK decodes what [ACK.Append] encodes.
func ReadACK(body []byte) (ACK, error) {
	c := cursor{b: body}
	var a ACK
	a.Entries = list(&c, MaxList, minACKEntryLen, func() ACKEntry {
		return ACKEntry{Stream: c.id(), Mark: c.mark(), Credit: c.uvarint(MaxNumber)}
	})
	if err := c.end(); err != nil {
		return ACK{}, err
	}
	return a, nil
}

// Append implements [Control].
func (b Bye) Append(dst []byte) []byte { return appendMark(dst, b.Mark) }

// ReadBye decodes what [Bye.Append] encodes.
func ReadBye(body []byte) (Bye, error) {
	c := cursor{b: body}
	b := Bye{Mark: c.mark()}
	if err := c.end(); err != nil {
		return Bye{}, err
	}
	return b, nil
}

// Append implements [Control].
func (r Reset) Append(dst []byte) []byte {
	return appendFlag(appendMark(append(dst, r.Old[:]...), r.Mark), r.Doubtful)
}

// ReadReset decodes what [Reset.Append] encodes.
func ReadReset(body []byte) (Reset, error) {
	c := cursor{b: body}
	r := Reset{Old: c.id(), Mark: c.mark(), Doubtful: c.flag()}
	if err := c.end(); err != nil {
		return Reset{}, err
	}
	return r, nil
}

// Append implements [Control].
func (d Digest) Append(dst []byte) []byte { return appendStreamMarks(dst, d.Entries) }

// ReadDigest decodes what [Digest.Append] encodes.
func ReadDigest(body []byte) (Digest, error) {
	c := cursor{b: body}
	d := Digest{Entries: c.streamMarks()}
	if err := c.end(); err != nil {
		return Digest{}, err
	}
	return d, nil
}

// Append implements [Control].
func (w Witness) Append(dst []byte) []byte {
	dst = append(dst, w.To[:]...)
	dst = append(dst, w.Mine[:]...)
	dst = append(dst, w.Yours[:]...)
	return appendFlag(dst, w.Seen)
}

// ReadWitness decodes what [Witness.Append] encodes.
func ReadWitness(body []byte) (Witness, error) {
	c := cursor{b: body}
	w := Witness{To: c.id(), Mine: c.id(), Yours: c.id(), Seen: c.flag()}
	if w.Seen && w.Yours == (ID{}) {
		c.fail(errFlag)
	}
	if err := c.end(); err != nil {
		return Witness{}, err
	}
	return w, nil
}

func appendStreamMarks(dst []byte, l []StreamMark) []byte {
	dst = binary.AppendUvarint(dst, uint64(len(l)))
	for _, e := range l {
		dst = appendMark(append(dst, e.Stream[:]...), e.Mark)
	}
	return dst
}

func (c *cursor) streamMarks() []StreamMark {
	return list(c, MaxList, minStreamMarkLen, func() StreamMark {
		return StreamMark{Stream: c.id(), Mark: c.mark()}
	})
}
