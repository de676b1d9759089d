package wire

import (
	"encoding/binary"
	"errors"
	"testing"
)

func TestHeader_ComesBackAsWritten(t *testing.T) {
	want := testHeader()
	want.Count, want.Length = 2, HeaderLen+20
	frame := make([]byte, want.Length)
	PutHeader(frame, want)
	got, err := ParseHeader(frame)
	if err != nil || got != want {
		t.Fatalf("ParseHeader = %+v, %v, want %+v", got, err, want)
	}
}

func TestParseHeader_RefusesWhatBreaksALimit(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change func(f []byte) []byte
		want   error
	}{
		{"empty", func(f []byte) []byte { return nil }, ErrLength},
		{"one byte short of a header", func(f []byte) []byte { return f[:HeaderLen-1] }, ErrLength},
		{"length comes before magic", func(f []byte) []byte { f[0]++; return f[:HeaderLen-1] }, ErrLength},
		{"one byte above the largest frame", func(f []byte) []byte {
			f = append(f, make([]byte, MaxFrameLen+1-len(f))...)
			binary.BigEndian.PutUint32(f[8:], uint32(len(f)))
			return f
		}, ErrLength},
		{"magic", func(f []byte) []byte { f[3]++; return f }, ErrMagic},
		{"magic comes before version", func(f []byte) []byte { f[3]++; f[4]++; return f }, ErrMagic},
		{"version", func(f []byte) []byte { f[4] = 2; return f }, ErrVersion},
		{"version comes before the length field", func(f []byte) []byte { f[4] = 2; f[11]++; return f }, ErrVersion},
		{"length field one more", func(f []byte) []byte { f[11]++; return f }, ErrLength},
		{"length field one less", func(f []byte) []byte { f[11]--; return f }, ErrLength},
		{"type 0", func(f []byte) []byte { f[5] = 0; return f }, ErrType},
		{"type between events and control", func(f []byte) []byte { f[5] = 15; return f }, ErrType},
		{"type above the last", func(f []byte) []byte { f[5] = 26; return f }, ErrType},
		{"flag", func(f []byte) []byte { f[7] = 1; return f }, errFlags},
		{"key 0", func(f []byte) []byte { clear(f[12:16]); return f }, errZeroID},
		{"site 0", func(f []byte) []byte { clear(f[16:32]); return f }, errZeroID},
		{"stream 0", func(f []byte) []byte { clear(f[32:48]); return f }, errZeroID},
		{"number 0", func(f []byte) []byte { clear(f[48:56]); return f }, errNumber},
		{"number 2^48", func(f []byte) []byte { binary.BigEndian.PutUint64(f[48:], 1<<48); return f }, errNumber},
		{"ordinal 2^48", func(f []byte) []byte { binary.BigEndian.PutUint64(f[56:], 1<<48); return f }, errOrdinal},
		{"ordinal whose last event reaches 2^48", func(f []byte) []byte { binary.BigEndian.PutUint64(f[56:], 1<<48-2); return f }, errOrdinal},
		{"ordinal that wraps", func(f []byte) []byte { binary.BigEndian.PutUint64(f[56:], 1<<64-2); return f }, errOrdinal},
		{"events without an event", func(f []byte) []byte { clear(f[64:68]); return f }, errCount},
		{"more events than bytes", func(f []byte) []byte { f[67] = 6; return f }, errCount},
		{"fragment with two events", func(f []byte) []byte { f[5] = 2; return f }, errCount},
		{"control frame with events", func(f []byte) []byte { f[5] = 16; clear(f[56:64]); return f }, errCount},
		{"control frame with an ordinal", func(f []byte) []byte { f[5] = 16; clear(f[64:68]); return f }, errOrdinal},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h := testHeader()
			h.Count = 2
			frame := make([]byte, HeaderLen+20)
			PutHeader(frame, h)
			if _, err := ParseHeader(tt.change(frame)); !errors.Is(err, tt.want) {
				t.Errorf("error %v, want %v", err, tt.want)
			}
		})
	}
}

func TestParseHeader_AcceptsTheLimitsThemselves(t *testing.T) {
	h := testHeader()
	h.Number, h.Ordinal, h.Count, h.Clock = MaxNumber, MaxNumber-5, 5, -1
	frame := make([]byte, HeaderLen+20)
	PutHeader(frame, h)
	if _, err := ParseHeader(frame); err != nil {
		t.Error(err)
	}
	frame = make([]byte, MaxFrameLen)
	PutHeader(frame, h)
	if _, err := ParseHeader(frame); err != nil {
		t.Error(err)
	}
}

func TestFrameFields_AreThoseOfTheHeader(t *testing.T) {
	h := testHeader()
	h.Type, h.Number = TypeDigest, MaxNumber-1
	frame := make([]byte, HeaderLen)
	PutHeader(frame, h)
	if v, typ, n := FrameVersion(frame), FrameType(frame), FrameNumber(frame); v != Version || typ != h.Type || n != h.Number {
		t.Errorf("version %d, type %v, number %d", v, typ, n)
	}
}
