package worker

import (
	"bytes"
	"os"
	"runtime"
	"runtime/metrics"
	"strconv"

	"github.com/carillon-go/carillon/internal/history"
	"github.com/carillon-go/carillon/site"
)

const liveHeap = "/gc/heap/live:bytes"

// sample returns what the worker knows about itself.
func (w *worker) sample() Sample {
	stats, status := w.broker.Stats(), w.broker.Status()
	s := Sample{
		Raised: w.raised.Load(), Local: w.diary.local.Load(),
		Handed: stats.Handed, Backlog: stats.Backlog, Queued: stats.Queues.Events + stats.Queues.HeldEvents,
		Received: stats.Received, Missed: stats.Missed, Ready: status.Ready, Key: uint32(status.Key),
		Peers: map[string]PeerState{}, Drops: map[string]uint64{},
		Goroutines: runtime.NumGoroutine(), RSSBytes: rss(), Files: files(),
	}
	if now := stream(w.broker); now != w.stream && now != (site.StreamID{}) {
		w.stream = now
		w.diary.write(history.Record{Kind: history.Renumbered, Stream: history.Stream(now)})
	}
	s.Stream = w.stream.String()
	for _, p := range stats.Peers {
		s.Peers[p.Source.Stream.String()] = PeerState{Known: p.Known, Complete: p.Complete, Gaps: p.Gaps, Joining: p.Joining, Closing: p.Closing}
	}
	for reason, n := range stats.Drops {
		if n > 0 {
			s.Drops[reason.String()] = n
		}
	}
	heap := []metrics.Sample{{Name: liveHeap}}
	if metrics.Read(heap); heap[0].Value.Kind() == metrics.KindUint64 {
		s.HeapBytes = heap[0].Value.Uint64()
	}
	return s
}

// rss returns the memory of this process that is in use, as the kernel sees it.
func rss() uint64 {
	b, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		return 0
	}
	fields := bytes.Fields(b) // in pages; the second is resident
	if len(fields) < 2 {
		return 0
	}
	pages, _ := strconv.ParseUint(string(fields[1]), 10, 64)
	return pages * uint64(os.Getpagesize())
}

// files returns how many files and sockets are open.
func files() int {
	list, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return 0
	}
	return len(list)
}
