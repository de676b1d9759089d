package udpbus

import (
	"context"
	"log/slog"
	"sync"
	"time"
)

// Keys of log attributes.
const (
	keyMode      = "mode"
	keyGroup     = "group"
	keyInterface = "interface"
	keyAddress   = "address"
	keyPort      = "port"
	keyPeers     = "peers"
	keyPeer      = "peer"
	keyAsked     = "asked_bytes"
	keyGranted   = "granted_bytes"
	keyDatagrams = "datagrams"
	keyError     = "error"
)

// A reporter counts something that may happen very often and logs it once a second
// at most. It is safe for concurrent use.
type reporter struct {
	mu    sync.Mutex
	count uint64
	next  time.Time
}

// add counts n and logs the sum, if the last time is long ago.
func (r *reporter) add(n int, log *slog.Logger, message string, attrs ...slog.Attr) {
	r.mu.Lock()
	r.count += uint64(n)
	count, now := r.count, time.Now()
	say := !now.Before(r.next)
	if say {
		r.next = now.Add(time.Second)
	}
	r.mu.Unlock()
	if say {
		log.LogAttrs(context.Background(), slog.LevelWarn, message, append(attrs, slog.Uint64(keyDatagrams, count))...)
	}
}
