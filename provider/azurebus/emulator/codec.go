package emulator

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
)

// Values of AMQP 1.0 as they are kept here. Beside these: nil, bool, uint8, uint16, uint32, uint64, int8, int16, int32, int64,
// float32, float64, string and []byte.
type (
	symbol string
	uuid   [16]byte
	// A moment is milliseconds since 1970.
	moment    int64
	list      []any
	array     []any
	mapping   []pair
	pair      struct{ key, value any }
	described struct {
		code  uint64
		value any
	}
	// opaque is a value of a type that nothing here looks at.
	opaque struct {
		code byte
		raw  string
	}
)

var errShort = errors.New("emulator: a value ends too early")

// maxDepth bounds how deep values contain each other.
const maxDepth = 16

// decode reads one value and returns what follows it.
func decode(b []byte) (v any, rest []byte, err error) { return decodeIn(b, maxDepth) }

func decodeIn(b []byte, depth int) (v any, rest []byte, err error) {
	if depth == 0 {
		return nil, nil, errors.New("emulator: values contain each other too deep")
	}
	if len(b) == 0 {
		return nil, nil, errShort
	}
	if b[0] != 0 {
		return decodeAs(b[0], b[1:], depth)
	}
	descriptor, rest, err := decodeIn(b[1:], depth-1)
	if err != nil {
		return nil, nil, err
	}
	code, err := codeOf(descriptor)
	if err != nil {
		return nil, nil, err
	}
	value, rest, err := decodeIn(rest, depth-1)
	return described{code, value}, rest, err
}

// codeOf returns the number of a descriptor. Of those with names only the one is known that clients write into a filter.
func codeOf(descriptor any) (uint64, error) {
	switch d := descriptor.(type) {
	case uint64:
		return d, nil
	case symbol:
		return 0, nil
	}
	return 0, fmt.Errorf("emulator: %T is no descriptor", descriptor)
}

// decodeAs reads what a constructor announced.
func decodeAs(code byte, b []byte, depth int) (v any, rest []byte, err error) {
	width, sized := 0, false
	switch code >> 4 {
	case 0x4:
	case 0x5:
		width = 1
	case 0x6:
		width = 2
	case 0x7:
		width = 4
	case 0x8:
		width = 8
	case 0x9:
		width = 16
	case 0xa, 0xc, 0xe:
		sized = true
		if len(b) < 1 {
			return nil, nil, errShort
		}
		width, b = int(b[0]), b[1:]
	case 0xb, 0xd, 0xf:
		sized = true
		if len(b) < 4 {
			return nil, nil, errShort
		}
		if n := binary.BigEndian.Uint32(b); n > math.MaxInt32 {
			return nil, nil, errShort
		} else {
			width, b = int(n), b[4:]
		}
	default:
		return nil, nil, fmt.Errorf("emulator: 0x%02x begins no value", code)
	}
	if len(b) < width {
		return nil, nil, errShort
	}
	data, rest := b[:width:width], b[width:]
	if sized && code>>4 >= 0xc {
		v, err = decodeCompound(code, data, depth)
		return v, rest, err
	}
	v, err = decodeScalar(code, data)
	return v, rest, err
}

func decodeScalar(code byte, data []byte) (any, error) {
	switch code {
	case 0x40:
		return nil, nil
	case 0x41, 0x42:
		return code == 0x41, nil
	case 0x43:
		return uint32(0), nil
	case 0x44:
		return uint64(0), nil
	case 0x45:
		return list{}, nil
	case 0x50:
		return data[0], nil
	case 0x51:
		return int8(data[0]), nil
	case 0x52:
		return uint32(data[0]), nil
	case 0x53:
		return uint64(data[0]), nil
	case 0x54:
		return int32(int8(data[0])), nil
	case 0x55:
		return int64(int8(data[0])), nil
	case 0x56:
		return data[0] != 0, nil
	case 0x60:
		return binary.BigEndian.Uint16(data), nil
	case 0x61:
		return int16(binary.BigEndian.Uint16(data)), nil
	case 0x70:
		return binary.BigEndian.Uint32(data), nil
	case 0x71:
		return int32(binary.BigEndian.Uint32(data)), nil
	case 0x72:
		return math.Float32frombits(binary.BigEndian.Uint32(data)), nil
	case 0x80:
		return binary.BigEndian.Uint64(data), nil
	case 0x81:
		return int64(binary.BigEndian.Uint64(data)), nil
	case 0x82:
		return math.Float64frombits(binary.BigEndian.Uint64(data)), nil
	case 0x83:
		return moment(binary.BigEndian.Uint64(data)), nil
	case 0x98:
		return uuid(data), nil
	case 0xa0, 0xb0:
		return append([]byte{}, data...), nil
	case 0xa1, 0xb1:
		return string(data), nil
	case 0xa3, 0xb3:
		return symbol(data), nil
	}
	return opaque{code, string(data)}, nil
}

// decodeCompound reads a list, a map or an array, whose data begins with how many there are.
func decodeCompound(code byte, data []byte, depth int) (any, error) {
	count := 0
	if code&0xf0 == 0xc0 || code&0xf0 == 0xe0 {
		if len(data) < 1 {
			return nil, errShort
		}
		count, data = int(data[0]), data[1:]
	} else {
		if len(data) < 4 {
			return nil, errShort
		}
		count, data = int(binary.BigEndian.Uint32(data)), data[4:]
	}
	values := list{}
	if code >= 0xe0 {
		if len(data) < 1 {
			return nil, errShort
		}
		constructor := data[0]
		data = data[1:]
		if constructor == 0 || constructor>>4 == 0x4 && count > len(data)+1 {
			return nil, errors.New("emulator: an array of values that take no room, or are described")
		}
		for range count {
			v, rest, err := decodeAs(constructor, data, depth-1)
			if err != nil {
				return nil, err
			}
			values, data = append(values, v), rest
		}
		return array(values), nil
	}
	for range count {
		v, rest, err := decodeIn(data, depth-1)
		if err != nil {
			return nil, err
		}
		values, data = append(values, v), rest
	}
	switch code {
	case 0xc0, 0xd0:
		return values, nil
	case 0xc1, 0xd1:
		if len(values)%2 != 0 {
			return nil, errors.New("emulator: a map with a key that has no value")
		}
		m := make(mapping, 0, len(values)/2)
		for i := 0; i < len(values); i += 2 {
			m = append(m, pair{values[i], values[i+1]})
		}
		return m, nil
	}
	return nil, fmt.Errorf("emulator: 0x%02x begins no value", code)
}

// encode appends a value. It panics for a type that is not listed above.
func encode(b []byte, v any) []byte {
	switch v := v.(type) {
	case nil:
		return append(b, 0x40)
	case bool:
		if v {
			return append(b, 0x41)
		}
		return append(b, 0x42)
	case uint8:
		return append(b, 0x50, v)
	case int8:
		return append(b, 0x51, byte(v))
	case uint16:
		return binary.BigEndian.AppendUint16(append(b, 0x60), v)
	case int16:
		return binary.BigEndian.AppendUint16(append(b, 0x61), uint16(v))
	case uint32:
		return binary.BigEndian.AppendUint32(append(b, 0x70), v)
	case int32:
		return binary.BigEndian.AppendUint32(append(b, 0x71), uint32(v))
	case float32:
		return binary.BigEndian.AppendUint32(append(b, 0x72), math.Float32bits(v))
	case uint64:
		return binary.BigEndian.AppendUint64(append(b, 0x80), v)
	case int64:
		return binary.BigEndian.AppendUint64(append(b, 0x81), uint64(v))
	case float64:
		return binary.BigEndian.AppendUint64(append(b, 0x82), math.Float64bits(v))
	case moment:
		return binary.BigEndian.AppendUint64(append(b, 0x83), uint64(v))
	case uuid:
		return append(append(b, 0x98), v[:]...)
	case []byte:
		return append(binary.BigEndian.AppendUint32(append(b, 0xb0), uint32(len(v))), v...)
	case string:
		return append(binary.BigEndian.AppendUint32(append(b, 0xb1), uint32(len(v))), v...)
	case symbol:
		return append(binary.BigEndian.AppendUint32(append(b, 0xb3), uint32(len(v))), v...)
	case described:
		if v.code < 256 {
			return encode(append(b, 0, 0x53, byte(v.code)), v.value)
		}
		return encode(encode(append(b, 0), v.code), v.value)
	case list:
		return encodeCompound(b, 0xd0, len(v), func(b []byte) []byte {
			for _, e := range v {
				b = encode(b, e)
			}
			return b
		})
	case mapping:
		return encodeCompound(b, 0xd1, 2*len(v), func(b []byte) []byte {
			for _, e := range v {
				b = encode(encode(b, e.key), e.value)
			}
			return b
		})
	case array: // of symbols, as nothing else is said here
		return encodeCompound(b, 0xf0, len(v), func(b []byte) []byte {
			b = append(b, 0xb3)
			for _, e := range v {
				s, _ := e.(symbol)
				b = append(binary.BigEndian.AppendUint32(b, uint32(len(s))), s...)
			}
			return b
		})
	case opaque:
		b = append(b, v.code)
		switch v.code >> 4 {
		case 0xa:
			b = append(b, byte(len(v.raw)))
		case 0xb:
			b = binary.BigEndian.AppendUint32(b, uint32(len(v.raw)))
		}
		return append(b, v.raw...)
	}
	panic(fmt.Sprintf("emulator: cannot encode %T", v))
}

func encodeCompound(b []byte, code byte, count int, contents func([]byte) []byte) []byte {
	b = append(b, code)
	at := len(b)
	b = append(b, 0, 0, 0, 0)
	b = binary.BigEndian.AppendUint32(b, uint32(count))
	b = contents(b)
	binary.BigEndian.PutUint32(b[at:], uint32(len(b)-at-4))
	return b
}

// field returns the i-th value of a list if it is there and of type T, or the zero T.
func field[T any](l list, i int) (v T) {
	if i < len(l) {
		v, _ = l[i].(T)
	}
	return v
}
