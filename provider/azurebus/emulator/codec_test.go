package emulator

import (
	"reflect"
	"testing"
)

func TestDecode_IsTheOppositeOfEncode(t *testing.T) {
	for _, v := range []any{
		nil, true, false, uint8(7), int8(-7), uint16(700), int16(-700), uint32(0), uint32(1 << 31), int32(-5), uint64(300), int64(-1), float32(1.5), 2.5,
		moment(12345), uuid{1, 2}, []byte{0, 1}, "text", symbol("amqp:x"), list{}, list{nil, "a", list{uint32(1)}}, mapping{{"k", uint32(1)}, {symbol("s"), nil}},
		array{symbol("one"), symbol("two")}, described{0x28, list{"address"}}, described{0x13700000c, "filter"},
	} {
		got, rest, err := decode(append(encode(nil, v), 0xaa))
		if err != nil || len(rest) != 1 || !reflect.DeepEqual(got, v) {
			t.Errorf("decode(encode(%#v)) = %#v, %d bytes left, %v", v, got, len(rest), err)
		}
	}
}

func FuzzFrame(f *testing.F) {
	f.Add(appendFrame(nil, frame{code: codeAttach, channel: 3, fields: list{"name", uint32(1), true, nil, nil, described{codeSource, list{"topic"}}}})[4:])
	f.Add(appendFrame(nil, frame{code: codeTransfer, fields: list{uint32(1)}, payload: []byte("x")})[4:])
	f.Add([]byte{2, 0, 0, 0, 0, 0x53, 0x12, 0xf0, 0, 0, 0, 9, 0xff, 0xff, 0xff, 0xff, 0x40})
	f.Fuzz(func(t *testing.T, b []byte) {
		in, err := parseFrame(b)
		if err != nil || in.code == 0 {
			return
		}
		for _, v := range in.fields {
			if _, ok := v.(array); ok {
				return // of which only those of symbols are written
			}
		}
		defer func() {
			if r := recover(); r != nil {
				t.Errorf("%v", r)
			}
		}()
		out, err := parseFrame(appendFrame(nil, in)[4:])
		if err != nil || out.code != in.code || len(out.fields) != len(in.fields) || string(out.payload) != string(in.payload) {
			t.Errorf("%#v became %#v, %v", in, out, err)
		}
	})
}

func TestFilter_DecidesAsSQLDoes(t *testing.T) {
	const own = "user.a_from <> 'me' AND (user.a_to IS NULL OR user.a_to = 'me')"
	for _, tt := range []struct {
		sql        string
		properties map[string]any
		want       truth
	}{
		{own, map[string]any{"a_from": "you"}, yes},
		{own, map[string]any{"a_from": "me"}, no},
		{own, map[string]any{"a_from": "you", "a_to": "me"}, yes},
		{own, map[string]any{"a_from": "you", "a_to": "him"}, no},
		{own, nil, unknown},
		{own, map[string]any{"a_from": 7}, yes},
		{"NOT [x] = 'it''s'", map[string]any{"X": "it's"}, no},
		{"x IS NOT NULL", nil, no},
		{"not (x = 'a' or x = 'b')", map[string]any{"x": "c"}, yes},
		{"x = 'a' or y = 'b'", map[string]any{"y": "b"}, yes},
		{"x = 'a' or y = 'b'", map[string]any{"y": "c"}, unknown},
	} {
		f, err := parseFilter(tt.sql)
		if err != nil {
			t.Errorf("%s: %v", tt.sql, err)
			continue
		}
		if got := f(tt.properties); got != tt.want {
			t.Errorf("%s for %v is %d, want %d", tt.sql, tt.properties, got, tt.want)
		}
	}
	for _, sql := range []string{"", "a", "a =", "a = b", "'a' = 'b'", "(a = 'x'", "a = 'x' b", "a LIKE 'x'", "a = 'x", "a IS 'x'", "$"} {
		if _, err := parseFilter(sql); err == nil {
			t.Errorf("%q is accepted", sql)
		}
	}
}

func FuzzFilter(f *testing.F) {
	f.Add("user.a <> 'x' AND (b IS NULL OR NOT b = 'y')", "x")
	f.Add("[a]]b] = ''''", "'")
	f.Fuzz(func(t *testing.T, sql, value string) {
		p, err := parseFilter(sql)
		if err != nil {
			return
		}
		properties := map[string]any{"a": value}
		if first := p(properties); first != p(properties) || first > no {
			t.Errorf("%q is %d", sql, first)
		}
	})
}
