package wire

// A Builder puts events into one EVENTS frame after another. Its own memory
// stays with it; the frames that [Builder.Finish] returns are new, exactly as
// long as needed, and never touched again. The zero Builder takes no event
// before [Builder.Reset].
type Builder struct {
	body    []byte
	count   int
	limit   int // of the body
	trailer int
	dict    dictionary
}

// Reset begins a frame of at most limit bytes, header and trailer included. What was
// appended since the last Finish is forgotten. A limit above [MaxFrameLen]
// counts as that.
func (b *Builder) Reset(limit, trailer int) {
	b.body = b.body[:0]
	b.count = 0
	b.dict.n = 0
	b.limit = min(limit, MaxFrameLen) - HeaderLen - trailer
	b.trailer = trailer
}

// Append adds e, whose payload it copies. It returns false and changes nothing when
// e does not fit any more; in an empty frame that means that e needs fragments.
func (b *Builder) Append(e *Event) bool {
	before, introduced := len(b.body), b.dict.n
	if len(e.Payload) > b.limit-before {
		return false // the copy below would be in vain, and of any size
	}
	b.body = b.dict.appendRecord(b.body, e)
	if len(b.body) > b.limit {
		b.body, b.dict.n = b.body[:before], introduced
		return false
	}
	b.count++
	return true
}

// Len returns the length of the frame so far, header and trailer included.
func (b *Builder) Len() int { return HeaderLen + len(b.body) + b.trailer }

// Count returns how many events the frame holds so far.
func (b *Builder) Count() int { return b.count }

// Finish returns the frame, with zeros where the seal goes, and begins the next
// one within the same limits. Type, Count and Length of h do not matter.
// The caller makes sure that Count is not 0.
func (b *Builder) Finish(h Header) []byte {
	frame := make([]byte, b.Len())
	h.Type = TypeEvents
	h.Count = uint32(b.count)
	PutHeader(frame, h)
	copy(frame[HeaderLen:], b.body)
	b.body, b.count, b.dict.n = b.body[:0], 0, 0
	return frame
}
