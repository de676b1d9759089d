// Package dashboard shows the instances of the demonstration side by side, with
// a live feed of their events, and lets a person cut, kill and start them. It
// runs in the process that started the instances.
package dashboard

import (
	"crypto/rand"
	"encoding/json"
	"fmt"
	"slices"
	"sync"

	"github.com/carillon-go/carillon/examples/cms"
)

// State is where the process of an instance is.
type State string

const (
	Starting State = "starting"
	Running  State = "running" // in step, enabled, and listening
	Stopped  State = "stopped"
)

// An Instance is what the dashboard knows of one instance.
type Instance struct {
	Index    int          `json:"index"` // from 1
	Port     int          `json:"port"`
	PID      int          `json:"pid"` // 0 while there is no process
	State    State        `json:"state"`
	Cut      bool         `json:"cut"`            // its network is cut
	Note     string       `json:"note,omitempty"` // why it stopped
	Counters cms.Counters `json:"counters"`
}

const (
	ringLen   = 400 // reports kept for a browser that comes later
	queueLen  = 512 // messages that a slow browser may lie behind
	maxViewer = 64  // browsers that watch at a time
)

// A Hub collects what the instances tell and passes it on to the browsers. It is
// safe for concurrent use. Use [NewHub].
type Hub struct {
	run string // differs between two runs, so that a browser notices

	mu        sync.Mutex
	instances []Instance
	ring      []message // reports, oldest first
	last      uint64    // number of the newest report
	viewers   map[*viewer]struct{}
	closed    bool
}

// A message is one server-sent event.
type message struct {
	id   uint64 // 0 for messages that a browser need not remember
	name string
	data []byte
}

// A viewer is one browser. Its queue is closed when it has fallen behind; it
// then comes back and asks for what it lacks.
type viewer struct{ queue chan message }

// NewHub returns a hub for the instances given.
func NewHub(instances []Instance) *Hub {
	return &Hub{
		run:       rand.Text()[:8],
		instances: slices.Clone(instances),
		viewers:   map[*viewer]struct{}{},
	}
}

// Instances returns what is known now.
func (h *Hub) Instances() []Instance {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.instances)
}

// Update changes what is known of an instance and tells the browsers. fn must
// not call the Hub.
func (h *Hub) Update(index int, fn func(*Instance)) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if index < 1 || index > len(h.instances) {
		return
	}
	in := &h.instances[index-1]
	before := *in
	fn(in)
	if *in != before {
		h.sendLocked(message{name: "instance", data: encode(in)})
	}
}

// A report is a cms.Report with the instance that made it.
type report struct {
	Instance int   `json:"instance"`
	Cut      []int `json:"cut,omitempty"` // who cannot hear what was raised, because of a network that is cut
	cms.Report
}

// Report passes on what an instance tells.
func (h *Hub) Report(index int, r cms.Report) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.last++
	m := message{id: h.last, name: "report", data: encode(report{index, h.cutLocked(index, r), r})}
	if len(h.ring) == ringLen {
		h.ring = slices.Delete(h.ring, 0, ringLen/4)
	}
	h.ring = append(h.ring, m)
	h.sendLocked(m)
}

// cutLocked returns the instances that a cut network keeps from hearing what
// one of them has raised. h.mu is held.
func (h *Hub) cutLocked(index int, r cms.Report) (cut []int) {
	if r.Kind != cms.KindRaised || index < 1 || index > len(h.instances) {
		return nil
	}
	for _, in := range h.instances {
		if in.Index != index && in.State == Running && (in.Cut || h.instances[index-1].Cut) {
			cut = append(cut, in.Index)
		}
	}
	return cut
}

func (h *Hub) sendLocked(m message) {
	for v := range h.viewers {
		select {
		case v.queue <- m:
		default:
			delete(h.viewers, v)
			close(v.queue)
		}
	}
}

// watch adds a browser that has seen all reports up to and including after, of
// this run. What it must know first is in its queue already. It returns false
// when there are too many.
func (h *Hub) watch(after uint64) (v *viewer, ok bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed || len(h.viewers) >= maxViewer {
		return nil, false
	}
	v = &viewer{queue: make(chan message, queueLen)} // more than ring and instances together
	v.queue <- message{name: "hello", data: encode(h.run)}
	for i := range h.instances {
		v.queue <- message{name: "instance", data: encode(&h.instances[i])}
	}
	for _, m := range h.ring {
		if m.id > after {
			v.queue <- m
		}
	}
	h.viewers[v] = struct{}{}
	return v, true
}

func (h *Hub) leave(v *viewer) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.viewers, v)
}

// Close sends all browsers away, so that the server can shut down.
func (h *Hub) Close() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.closed = true
	for v := range h.viewers {
		delete(h.viewers, v)
		close(v.queue)
	}
}

// encode returns v as JSON on one line.
func encode(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		panic(fmt.Sprintf("dashboard: encode %T: %v", v, err)) // our own types always encode
	}
	return b
}
