package redisbus

import (
	"bytes"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestMessage_HoldsPrefixAndFrame(t *testing.T) {
	for _, tt := range []struct {
		name    string
		message string
		ok      bool
	}{
		{"nothing", "", false},
		{"part of a prefix", "1234567", false},
		{"a prefix alone is a probe", "12345678", false},
		{"the shortest frame", "12345678f", true},
		{"the longest frame", "12345678" + strings.Repeat("f", maxFrameBytes), true},
		{"one byte too long", "12345678" + strings.Repeat("f", maxFrameBytes+1), false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			from, frame, ok := parseMessage(tt.message)
			if ok != tt.ok {
				t.Fatalf("parseMessage of %d bytes: %v, want %v", len(tt.message), ok, tt.ok)
			}
			if ok && string(appendMessage(nil, from, frame)) != tt.message {
				t.Error("the message is not the one that it was parsed from")
			}
		})
	}
}

func TestEcho_KnowsTheOwnPrefixesAndForgetsThem(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		first, second, other := prefix{1}, prefix{2}, prefix{3}
		var e echo
		expect := func(when string, p prefix, want bool) {
			t.Helper()
			if e.is(p) != want {
				t.Errorf("%s: %v is an echo: %v, want %v", when, p, !want, want)
			}
		}
		expect("at first", prefix{}, false)
		e.use(first, time.Now(), remember)
		expect("connected", first, true)
		expect("connected", other, false)
		time.Sleep(time.Hour)
		expect("long connected", first, true)
		e.use(second, time.Now(), remember)
		expect("connected anew", second, true)
		expect("connected anew", first, true)
		expect("connected anew", other, false)
		time.Sleep(remember)
		expect("later", second, true)
		expect("later", first, false) // a copy of this process may be using it
	})
}

// FuzzParseMessage takes what anybody may publish.
func FuzzParseMessage(f *testing.F) {
	f.Add([]byte{})
	f.Add([]byte("12345678"))
	f.Add([]byte("12345678frame"))
	f.Add(appendMessage(nil, prefix{0xff}, bytes.Repeat([]byte{0}, 100)))
	f.Fuzz(func(t *testing.T, b []byte) {
		from, frame, ok := parseMessage(string(b))
		if !ok {
			if len(b) > prefixBytes && len(b) <= prefixBytes+maxFrameBytes {
				t.Errorf("a message of %d bytes is refused", len(b))
			}
			return
		}
		if len(frame) == 0 || len(frame) > maxFrameBytes || cap(frame) != len(frame) {
			t.Errorf("a frame of %d bytes with room for %d, out of %d", len(frame), cap(frame), len(b))
		}
		if !bytes.Equal(appendMessage(nil, from, frame), b) {
			t.Error("the message is not the one that it was parsed from")
		}
	})
}
