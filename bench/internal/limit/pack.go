//go:build linux

package limit

import (
	"encoding/binary"
	"errors"
)

const lengthBytes = 4

var (
	errPacked = errors.New("limit: what was packed does not end where an event does")
	errTag    = errors.New("limit: a tag does not match")
)

// A packer lays events out one after the other.
type packer struct {
	batch  int    // with a tagger, a tag for each batch of at most so many bytes; 0: for each event
	tagger tagger // nil: no tags
	buf    []byte
	begun  int // where the open batch begins in buf; -1: there is none
}

func newPacker(batch int, t tagger, room int) *packer {
	return &packer{batch: batch, tagger: t, buf: make([]byte, 0, room), begun: -1}
}

// need returns how much longer buf gets by an event of n bytes, at most.
func (p *packer) need(n int) int {
	n += lengthBytes
	if p.tagger != nil {
		n += lengthBytes + p.tagger.size()
	}
	return n
}

func (p *packer) add(event []byte) {
	if p.batch > 0 {
		if p.begun >= 0 && len(p.buf)-p.begun+lengthBytes+len(event) > p.batch {
			p.close()
		}
		if p.begun < 0 {
			p.begun = len(p.buf)
			p.buf = append(p.buf, 0, 0, 0, 0) // its length, when it is known
		}
	}
	p.buf = binary.BigEndian.AppendUint32(p.buf, uint32(len(event)))
	p.buf = append(p.buf, event...)
	if p.batch == 0 && p.tagger != nil {
		p.buf = p.tagger.seal(p.buf, event)
	}
}

// close ends the open batch.
func (p *packer) close() {
	if p.begun < 0 {
		return
	}
	body := p.buf[p.begun+lengthBytes:]
	binary.BigEndian.PutUint32(p.buf[p.begun:], uint32(len(body)))
	p.buf = p.tagger.seal(p.buf, body)
	p.begun = -1
}

// take returns everything packed so far, which is good until the next add.
func (p *packer) take() []byte {
	p.close()
	out := p.buf
	p.buf = p.buf[:0]
	return out
}

// unpack hands on the events at the beginning of data that are there completely, and returns how
// many bytes they took. tagger and batch are as the packer's.
func unpack(data []byte, batch int, t tagger, deliver func([]byte)) (taken int, err error) {
	for {
		part, tag, size, ok := cut(data[taken:], t)
		if !ok {
			return taken, nil
		}
		if t != nil && !t.open(part, tag) {
			return taken, errTag
		}
		taken += size
		if batch == 0 {
			deliver(part)
			continue
		}
		for len(part) > 0 {
			event, _, size, ok := cut(part, nil)
			if !ok {
				return taken, errPacked
			}
			deliver(event)
			part = part[size:]
		}
	}
}

// cut takes the first part off data: a length, as many bytes, and with a tagger a tag. ok is false if it is not all there.
func cut(data []byte, t tagger) (part, tag []byte, size int, ok bool) {
	if len(data) < lengthBytes {
		return nil, nil, 0, false
	}
	end := lengthBytes + int(binary.BigEndian.Uint32(data))
	size = end
	if t != nil {
		size += t.size()
	}
	if size > len(data) {
		return nil, nil, 0, false
	}
	return data[lengthBytes:end], data[end:size], size, true
}
