package wire

// A Builder puts events into one EVENTS frame after another. The frames that
// [Builder.Finish] returns are never touched again. The zero Builder takes no event
// before [Builder.Reset].
type Builder struct {
	frame   []byte // room for the header, then the records; nil if nothing was appended
	count   int
	limit   int // of the frame
	trailer int
	dict    dictionary
}

// Reset begins a frame of at most limit bytes, header and trailer included. What was
// appended since the last Finish is forgotten. A limit above [MaxFrameLen]
// counts as that.
func (b *Builder) Reset(limit, trailer int) {
	b.limit, b.trailer = min(limit, MaxFrameLen), trailer
	if cap(b.frame) < b.limit {
		b.frame = nil
	}
	b.begin()
}

func (b *Builder) begin() {
	if b.frame != nil {
		b.frame = b.frame[:HeaderLen]
	}
	b.count, b.dict.n = 0, 0
}

// Append adds e, whose payload it copies. It returns false and changes nothing when
// e does not fit any more; in an empty frame that means that e needs fragments.
func (b *Builder) Append(e *Event) bool {
	if room := b.limit - b.Len() - len(e.Payload); room < maxRecordHead && room < b.dict.headLen(e) {
		return false
	}
	if b.frame == nil {
		b.frame = make([]byte, HeaderLen, b.limit)
	}
	b.frame = b.dict.appendRecord(b.frame, e)
	b.count++
	return true
}

// Len returns the length of the frame so far, header and trailer included.
func (b *Builder) Len() int { return max(len(b.frame), HeaderLen) + b.trailer }

// Count returns how many events the frame holds so far.
func (b *Builder) Count() int { return b.count }

// Finish returns the frame, with zeros where the seal goes, and begins the next
// one within the same limits. Type, Count and Length of h do not matter.
// The caller makes sure that Count is not 0.
//
// A frame that fills most of the memory in which it was built is given away with it.
// Of another one there is a copy that is as long as needed: it may be kept for long.
func (b *Builder) Finish(h Header) []byte {
	frame := b.frame[:b.Len():b.Len()]
	if len(frame) > cap(b.frame)/4*3 {
		clear(frame[len(b.frame):])
		b.frame = nil
	} else {
		frame = make([]byte, b.Len())
		copy(frame, b.frame)
	}
	h.Type = TypeEvents
	h.Count = uint32(b.count)
	PutHeader(frame, h)
	b.begin()
	return frame
}
