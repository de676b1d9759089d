package plain

import "encoding/hex"

// A reader takes fields from the front of a body and refuses what is malformed.
type reader struct {
	rest []byte
}

func (r *reader) take(n uint64) []byte {
	hold(n <= uint64(len(r.rest)), "body")
	b := r.rest[:n]
	r.rest = r.rest[n:]
	return b
}

// number reads a uvarint in its shortest form that is at most limit.
func (r *reader) number(limit uint64) uint64 {
	var v uint64
	for shift := 0; ; shift += 7 {
		hold(shift < 63, "body") // 2^48 needs no more
		b := r.take(1)[0]
		v |= uint64(b&0x7f) << shift
		if b < 0x80 {
			hold(b != 0 || shift == 0, "body")
			hold(v <= limit, "body")
			return v
		}
	}
}

func (r *reader) any() uint64 { return r.number(numberLimit - 1) }
func (r *reader) hex() string { return hex.EncodeToString(r.take(16)) }
func (r *reader) flag() bool  { b := r.take(1)[0]; hold(b <= 1, "body"); return b == 1 }
func (r *reader) empty() bool { return len(r.rest) == 0 }
func (r *reader) mark() any   { return map[string]any{"frame": r.any(), "next": r.any()} }
func (r *reader) finish()     { hold(r.empty(), "body") }
func (r *reader) count() uint64 {
	n := r.any()
	hold(n > 0, "body")
	return n
}

func (r *reader) list(most uint64, entry func() any) []any {
	n := r.number(most)
	all := []any{}
	for range n {
		all = append(all, entry())
	}
	return all
}

// extensions reads an extension area to its end and returns the values.
func (r *reader) extensions() map[uint64][]byte {
	values := map[uint64][]byte{}
	for last := uint64(0); !r.empty(); {
		kind := r.any()
		hold(kind > last, "body")
		values[kind] = r.take(r.any())
		last = kind
	}
	return values
}

func (r *reader) events(count int) map[string]any {
	var dictionary [][]byte
	ref := func() string {
		k := r.any()
		if k == 0 {
			id := r.take(16)
			if len(dictionary) < 64 {
				dictionary = append(dictionary, id)
			}
			return hex.EncodeToString(id)
		}
		hold(k <= uint64(len(dictionary)), "body")
		return hex.EncodeToString(dictionary[k-1])
	}
	all := []any{}
	for range count {
		event, raiser, order := ref(), ref(), uint64(0)
		area := reader{rest: r.take(r.any())}
		if value, there := area.extensions()[1]; there {
			v := reader{rest: value}
			order = v.count()
			v.finish()
		}
		payload := r.take(r.any())
		all = append(all, map[string]any{
			"event": event, "raiser": raiser, "order": order, "payload": hex.EncodeToString(payload),
		})
	}
	r.finish()
	return map[string]any{"events": all}
}

func (r *reader) fragment(last bool) map[string]any {
	index, total, size := r.number(1<<16-1), r.number(1<<16), r.number(1<<26)
	chunk := r.rest
	hold(total >= 2 && index < total, "body")
	hold(len(chunk) >= 1 && uint64(len(chunk))+total-1 <= size, "body")
	hold(last == (index == total-1), "body")
	return map[string]any{"index": index, "total": total, "size": size, "chunk": hex.EncodeToString(chunk)}
}

// frames reads a range whose first frame comes after the one given.
func (r *reader) frames(after *uint64) any {
	first, more := r.any(), r.any()
	hold(first >= 1 && first > *after && first+more < numberLimit, "body")
	*after = first + more
	return map[string]any{"first": first, "last": first + more}
}

func (r *reader) streamMark() any { return map[string]any{"stream": r.hex(), "mark": r.mark()} }

func (r *reader) control(kind byte) map[string]any {
	m := map[string]any{}
	none := uint64(0)
	switch kind {
	case 16:
		m["mark"], m["low"] = r.mark(), r.any()
	case 17:
		m["stream"], m["anyone"] = r.hex(), r.flag()
		last := uint64(0)
		ranges := r.list(256, func() any { return r.frames(&last) })
		hold(len(ranges) > 0, "body")
		m["ranges"] = ranges
	case 18:
		m["frames"] = r.frames(&none)
		first, next := r.any(), r.any()
		hold(first <= next, "body")
		m["first"], m["next"] = first, next
		m["events"] = r.list(1024, func() any { return map[string]any{"event": r.hex(), "count": r.count()} })
		m["complete"] = r.flag()
	case 19:
		m["nonce"] = r.hex()
		m["streams"] = r.list(1024, func() any { return r.hex() })
	case 20:
		m["mark"] = r.mark()
		m["nonces"] = r.list(1024, func() any { return r.hex() })
		m["others"] = r.list(1024, r.streamMark)
	case 21:
		m["entries"] = r.list(1024, func() any {
			return map[string]any{"stream": r.hex(), "mark": r.mark(), "credit": r.any()}
		})
	case 22:
		m["mark"] = r.mark()
	case 23:
		m["old"], m["mark"], m["doubtful"] = r.hex(), r.mark(), r.flag()
	case 24:
		m["entries"] = r.list(1024, r.streamMark)
	case 25:
		to, mine, yours, seen := r.hex(), r.hex(), r.hex(), r.flag()
		hold(!seen || yours != "00000000000000000000000000000000", "body")
		m["to"], m["mine"], m["yours"], m["seen"] = to, mine, yours, seen
	}
	r.extensions()
	return m
}
