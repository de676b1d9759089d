package wire

// Events are one or more events that were decoded where they lie: it is noted
// where in the body their IDs and payloads are, and nothing is copied. They are
// read-only, and safe for concurrent use. The zero Events are none.
type Events struct {
	body  []byte // what was decoded; never changed
	spans []span
}

// A span says where the parts of an event begin in the body. References lead to
// the place that introduced an ID, so equal places mean equal IDs.
type span struct{ id, raiser, payload, size uint32 }

// Decode is what an [EventReader] reads of the body of an EVENTS frame whose
// header announces count events. It returns all of them or an error. ordered
// says that some have an order number, which the reader returns and this does
// not. It allocates once.
func Decode(body []byte, count uint32) (events Events, ordered bool, err error) {
	r := ReadEvents(body, count)
	// The header's check has bounded count by the length of the body; this is for
	// callers that did not ask it.
	spans := make([]span, min(int(count), len(body)/minRecordLen))
	for i := range spans {
		s := &spans[i]
		if r.short(s) { // the usual case, which is worth a way of its own
			continue
		}
		s.id = r.ref()
		s.raiser = r.ref()
		ordered = r.extensions() != 0 || ordered
		size := r.c.uvarint(MaxNumber)
		s.payload, s.size = uint32(len(body)-len(r.c.b)), uint32(size)
		r.c.bytes(size)
		r.left--
		if r.c.err != nil {
			return Events{}, false, r.c.err
		}
	}
	if r.left > 0 {
		r.c.fail(errShort)
	}
	if _, err := r.Next(new(Event)); err != nil { // or bytes left over
		return Events{}, false, err
	}
	return Events{body, spans}, ordered, nil
}

// short reads the next event, and counts it, if both IDs are references, there are no extensions, and
// the length of the payload takes two bytes at most. Otherwise it does nothing.
func (r *EventReader) short(s *span) bool {
	b := r.c.b
	if len(b) < minRecordLen+1 {
		return false
	}
	id, raiser, size, head := int(b[0]), int(b[1]), uint32(b[3]), 4
	if size >= 0x80 {
		size, head = size&0x7f|uint32(b[4])<<7, 5
		if b[4] == 0 || b[4] >= 0x80 {
			return false
		}
	}
	if id == 0 || id > r.n || raiser == 0 || raiser > r.n || b[2] != 0 || int(size) > len(b)-head {
		return false
	}
	*s = span{r.at[id-1], r.at[raiser-1], uint32(len(r.body) - len(b) + head), size}
	r.c.b = b[head+int(size):]
	r.left--
	return true
}

// DecodeRecord is [Decode] for a record that [AppendRecord] made and that was
// put together from fragments, with its order number.
func DecodeRecord(rec []byte) (events Events, order uint64, err error) {
	e, err := ReadRecord(rec)
	if err != nil {
		return Events{}, 0, err
	}
	events, _, err = Decode(rec, 1)
	return events, e.Order, err
}

// Len returns how many events there are.
func (e Events) Len() int { return len(e.spans) }

// ID returns the ID of event i.
func (e Events) ID(i int) ID { return ID(e.body[e.spans[i].id:]) }

// Raiser returns the raiser of event i.
func (e Events) Raiser(i int) ID { return ID(e.body[e.spans[i].raiser:]) }

// Payload returns the payload of event i, which aliases the body.
func (e Events) Payload(i int) []byte {
	s := &e.spans[i]
	return e.body[s.payload : s.payload+s.size : s.payload+s.size]
}

// Run returns the end of the run of events from i on that have the ID of event i.
func (e Events) Run(i int) (end int) {
	id := e.spans[i].id
	for end = i + 1; end < len(e.spans) && e.spans[end].id == id; end++ {
	}
	return end
}

// Slice returns the events from up to but not including to.
func (e Events) Slice(from, to int) Events { return Events{e.body, e.spans[from:to:to]} }

// PayloadBytes returns the length of all payloads together.
func (e Events) PayloadBytes() (n int) {
	for i := range e.spans {
		n += int(e.spans[i].size)
	}
	return n
}

// BodyBytes returns the length of the body, which lives as long as e.
func (e Events) BodyBytes() int { return len(e.body) }

// Clone returns the same events in memory that holds nothing else.
func (e Events) Clone() Events {
	c := Events{spans: make([]span, len(e.spans))}
	ids := 0
	for i := range e.spans { // an ID of one event is often that of the next
		if i == 0 || e.spans[i].id != e.spans[i-1].id {
			ids++
		}
		if i == 0 || e.spans[i].raiser != e.spans[i-1].raiser {
			ids++
		}
	}
	c.body = make([]byte, 0, ids*len(ID{})+e.PayloadBytes())
	for i := range e.spans {
		from, to := &e.spans[i], &c.spans[i]
		if i > 0 && from.id == e.spans[i-1].id {
			to.id = c.spans[i-1].id
		} else {
			to.id = c.add(e.body[from.id:][:len(ID{})])
		}
		if i > 0 && from.raiser == e.spans[i-1].raiser {
			to.raiser = c.spans[i-1].raiser
		} else {
			to.raiser = c.add(e.body[from.raiser:][:len(ID{})])
		}
		to.payload, to.size = c.add(e.Payload(i)), from.size
	}
	return c
}

func (e *Events) add(b []byte) (at uint32) {
	at = uint32(len(e.body))
	e.body = append(e.body, b...)
	return at
}
