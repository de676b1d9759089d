package redisbus

import (
	"crypto/rand"
	"encoding/hex"
	"sync/atomic"
	"time"
	"unsafe"
)

const prefixBytes = 8

// maxFrameBytes is what every receiver takes, whatever its MaxFrameBytes, so that instances
// whose settings differ understand each other.
const maxFrameBytes = 1 << 20

// A prefix begins every message and says through which connection it was sent.
type prefix [prefixBytes]byte

func newPrefix() (p prefix) {
	rand.Read(p[:])
	return p
}

// String returns p in hexadecimal.
func (p prefix) String() string { return hex.EncodeToString(p[:]) }

// appendMessage appends a frame as it is published.
func appendMessage(b []byte, from prefix, frame []byte) []byte {
	return append(append(b, from[:]...), frame...)
}

// parseMessage splits a message. It returns false for what no instance sends, and for what holds no
// frame. The frame shares its memory with message and is only to be read.
func parseMessage(message string) (from prefix, frame []byte, ok bool) {
	if len(message) <= prefixBytes || len(message) > prefixBytes+maxFrameBytes {
		return from, nil, false
	}
	copy(from[:], message)
	// The client library has allocated the string for this message, and nobody writes to it.
	frame = unsafe.Slice(unsafe.StringData(message), len(message))[prefixBytes:]
	return from, frame, true
}

const (
	// remember is how long after a connection has been replaced what it still had under way is known to be an
	// echo. In a stream it waits.
	remember       = 10 * time.Second
	rememberStream = 24 * time.Hour

	maxOwn = 64 // prefixes that are remembered
)

// An echo knows which prefixes are the own ones. The zero echo knows none.
type echo struct {
	prefixes atomic.Pointer[[]ownPrefix]
}

// An ownPrefix is that of one connection.
type ownPrefix struct {
	prefix prefix
	until  time.Time // when it is no more of interest; zero: it is the one in use
}

// use makes p the prefix of what is sent from now on, and remembers the one before for so long.
func (e *echo) use(p prefix, now time.Time, remember time.Duration) {
	next := []ownPrefix{{prefix: p}}
	if last := e.prefixes.Load(); last != nil {
		for _, own := range *last {
			if own.until.IsZero() {
				own.until = now.Add(remember)
			}
			if now.Before(own.until) && len(next) < maxOwn {
				next = append(next, own)
			}
		}
	}
	e.prefixes.Store(&next)
}

// is reports whether from is an own prefix.
func (e *echo) is(from prefix) bool {
	prefixes := e.prefixes.Load()
	if prefixes == nil {
		return false
	}
	for _, own := range *prefixes {
		if own.prefix == from {
			return own.until.IsZero() || time.Now().Before(own.until)
		}
	}
	return false
}
