package wire

import (
	"encoding/binary"
	"slices"
)

// MaxDictionary is how many IDs a frame can introduce for references. It keeps a
// reference at one byte and the memory of both ends fixed; IDs beyond it are
// written in full each time.
const MaxDictionary = 64

// extOrder is the extension of an event that holds its order number, a uvarint. The
// types 2 (trace context), 3 (order key), 4 (lane) and 5 (codec) are reserved:
// readers check the form of every type they do not know, and skip it.
const extOrder = 1

// An Event is one raise as it travels.
type Event struct {
	ID      ID
	Raiser  ID
	Order   uint64 // number within (stream, event) of an event that is Ordered; 0 means none
	Payload []byte // after decoding it aliases the frame: never change it
}

// extLen returns the length of e's extension area.
func (e *Event) extLen() int {
	if e.Order == 0 {
		return 0
	}
	return 2 + uvarintLen(e.Order)
}

// AppendRecord appends e's record on its own, as fragments carry it.
func AppendRecord(dst []byte, e *Event) []byte {
	var d dictionary
	return d.appendRecord(dst, e)
}

// ReadRecord decodes a record that [AppendRecord] made and that was put
// together from fragments. The payload aliases rec.
func ReadRecord(rec []byte) (Event, error) {
	var e, none Event
	r := ReadEvents(rec, 1)
	if _, err := r.Next(&e); err != nil {
		return Event{}, err
	}
	if _, err := r.Next(&none); err != nil { // bytes left over
		return Event{}, err
	}
	return e, nil
}

// A dictionary holds the IDs that a frame under construction has introduced.
type dictionary struct {
	n   int
	ids [MaxDictionary]ID
}

func (d *dictionary) appendRecord(dst []byte, e *Event) []byte {
	dst = d.appendID(dst, &e.ID)
	dst = d.appendID(dst, &e.Raiser)
	dst = binary.AppendUvarint(dst, uint64(e.extLen()))
	if e.Order != 0 {
		dst = append(dst, extOrder, byte(uvarintLen(e.Order)))
		dst = binary.AppendUvarint(dst, e.Order)
	}
	dst = binary.AppendUvarint(dst, uint64(len(e.Payload)))
	return append(dst, e.Payload...)
}

// maxRecordHead is the most that a record takes beside its payload: two IDs, an extension with an order number, and two lengths.
const maxRecordHead = 2*(1+len(ID{})) + 1 + (2 + binary.MaxVarintLen64) + binary.MaxVarintLen64

// headLen returns what the record of e would take beside its payload.
func (d *dictionary) headLen(e *Event) int {
	ids := d.idLen(&e.ID) + d.idLen(&e.Raiser)
	if e.Raiser == e.ID && d.n < len(d.ids) {
		ids = d.idLen(&e.ID) + 1
	}
	ext := e.extLen()
	return ids + uvarintLen(uint64(ext)) + ext + uvarintLen(uint64(len(e.Payload)))
}

func (d *dictionary) idLen(id *ID) int {
	if slices.Contains(d.ids[:d.n], *id) {
		return 1
	}
	return 1 + len(id)
}

// appendID appends a reference to id, or id itself when the frame has not
// introduced it.
func (d *dictionary) appendID(dst []byte, id *ID) []byte {
	for i := range d.ids[:d.n] {
		if d.ids[i] == *id {
			return append(dst, byte(i+1))
		}
	}
	if d.n < len(d.ids) {
		d.ids[d.n] = *id
		d.n++
	}
	return append(append(dst, 0), id[:]...)
}

// An EventReader reads the events of one frame one after the other. It
// allocates nothing. Make it with [ReadEvents]; it is not safe for concurrent
// use.
type EventReader struct {
	body []byte // whole, for references
	c    cursor
	left uint32
	n    int                   // IDs introduced so far that can be referred to
	at   [MaxDictionary]uint32 // where in body they are
}

// ReadEvents returns a reader of the body of an EVENTS frame whose header
// announces count events.
func ReadEvents(body []byte, count uint32) EventReader {
	r := EventReader{body: body, c: cursor{b: body}, left: count}
	if count == 0 {
		r.c.fail(errCount)
	}
	return r
}

// Next reads the next event into e, whose payload then aliases the body. It
// returns false after the last one, and false with an error, from then on, once
// the body is malformed; bytes after the last event are. Events before the
// breach have been returned by then: a caller who wants all or nothing reads
// the frame to its end first.
func (r *EventReader) Next(e *Event) (bool, error) {
	if r.left == 0 || r.c.err != nil {
		if r.c.err == nil && len(r.c.b) > 0 {
			r.c.fail(errTrailing)
		}
		return false, r.c.err
	}
	e.ID = r.id()
	e.Raiser = r.id()
	e.Order = r.extensions()
	e.Payload = r.c.bytes(r.c.uvarint(MaxNumber))
	r.left--
	return r.c.err == nil, r.c.err
}

// id reads an ID or a reference to one.
func (r *EventReader) id() (id ID) {
	at := r.ref()
	if r.c.err != nil {
		return id
	}
	return ID(r.body[at:])
}

// ref reads an ID or a reference to one and returns where in the body it is.
func (r *EventReader) ref() (at uint32) {
	k := r.c.uvarint(MaxNumber)
	if k == 0 {
		at = uint32(len(r.body) - len(r.c.b))
		r.c.bytes(uint64(len(ID{})))
		if r.n < len(r.at) {
			r.at[r.n] = at
			r.n++
		}
		return at
	}
	if k > uint64(r.n) {
		r.c.fail(errReference)
		return 0
	}
	return r.at[k-1]
}

// extensions reads an event's extension area and returns its order number, or 0.
func (r *EventReader) extensions() (order uint64) {
	area := cursor{b: r.c.bytes(r.c.uvarint(MaxNumber))}
	for typ := uint64(0); len(area.b) > 0; {
		var value []byte
		typ, value = area.extension(typ)
		if typ == extOrder && area.err == nil {
			v := cursor{b: value}
			if order = v.uvarint(MaxNumber); v.err != nil || order == 0 || len(v.b) > 0 {
				area.fail(errOrder)
			}
		}
	}
	if area.err != nil {
		r.c.fail(area.err)
	}
	return order
}
