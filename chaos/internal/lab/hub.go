//go:build linux

package lab

import (
	"container/heap"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"os"
	"sync"
	"time"
)

// Disorder is what a hub does to IP packets between nodes beside carrying them. The zero
// Disorder does nothing. Probabilities are between 0 and 1, and hold for each
// packet and each of its receivers apart.
type Disorder struct {
	Delay  time.Duration // of every packet
	Jitter time.Duration // added to it: up to this much, each packet its own

	Reorder   float64 // held back for up to 20 ms, so that later ones overtake it
	Duplicate float64 // comes twice, the second time up to 20 ms later
	Corrupt   float64 // comes with some of its payload changed, and with a checksum that matches
}

// Done is what a lab has done to packets.
type Done struct {
	Carried    uint64 // by the hub
	Reordered  uint64 // held back
	Duplicated uint64
	Corrupted  uint64
	Overflowed uint64 // dropped because too many were held back
	Dropped    uint64 // by the rules of the nodes
}

const (
	holdBack = 20 * time.Millisecond // most that Reorder and Duplicate delay a packet
	maxHeld  = 1 << 16               // packets held back at a time
	maxFrame = 1 << 16               // bytes of a packet read from an interface
)

// A hub carries packets between the TAP interfaces of nodes, and disturbs them.
type hub struct {
	ports   []*os.File // by node
	readers sync.WaitGroup
	clock   sync.WaitGroup
	wake    chan struct{} // capacity 1: something earlier is held
	stopped chan struct{}

	mu       sync.Mutex // guards the fields below; not held while writing
	random   *rand.Rand
	disorder Disorder
	held     heldPackets
	seq      uint64
	done     Done
}

func newHub(seed uint64, ports []*os.File) *hub {
	h := &hub{
		ports: ports, wake: make(chan struct{}, 1), stopped: make(chan struct{}),
		random: rand.New(rand.NewPCG(seed, 0)),
	}
	for i := range ports {
		h.readers.Go(func() { h.read(i) })
	}
	h.clock.Go(h.release)
	return h
}

// close closes the interfaces, which ends the hub.
func (h *hub) close() error {
	var errs []error
	for _, p := range h.ports {
		errs = append(errs, p.Close())
	}
	h.readers.Wait()
	close(h.stopped)
	h.clock.Wait()
	return errors.Join(errs...)
}

func (h *hub) set(d Disorder) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.disorder = d
}

func (h *hub) counts() Done {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.done
}

// read carries what one node sends, until its interface is closed.
func (h *hub) read(from int) {
	buf := make([]byte, maxFrame)
	for {
		n, err := h.ports[from].Read(buf)
		if err != nil {
			return
		}
		p := packet(buf[:n])
		to, all := p.destination()
		for port := range h.ports {
			if port != from && (all || port == to) {
				h.carry(p, port)
			}
		}
	}
}

// carry takes p to a port now or later. It does not keep p.
func (h *hub) carry(p packet, port int) {
	h.mu.Lock()
	h.done.Carried++
	d := h.disorder
	if !p.isIPv4() {
		d = Disorder{} // address resolution
	}
	delay := d.Delay
	if d.Jitter > 0 {
		delay += time.Duration(h.random.Int64N(int64(d.Jitter)))
	}
	if h.chance(d.Reorder) {
		h.done.Reordered++
		delay += time.Millisecond + time.Duration(h.random.Int64N(int64(holdBack)))
	}
	if h.chance(d.Duplicate) {
		h.done.Duplicated++
		h.holdLocked(p.clone(), port, delay+time.Duration(h.random.Int64N(int64(holdBack))))
	}
	if h.chance(d.Corrupt) {
		changed := p.clone()
		if changed.corrupt(h.random) {
			h.done.Corrupted++
			p = changed
		}
	}
	if delay > 0 {
		h.holdLocked(p.clone(), port, delay)
		h.mu.Unlock()
		return
	}
	h.mu.Unlock()
	h.ports[port].Write(p) // an interface that is down loses it, as a cable would
}

func (h *hub) chance(p float64) bool { return p > 0 && h.random.Float64() < p }

// A heldPacket waits for its time.
type heldPacket struct {
	due  time.Time
	seq  uint64 // of two with the same time, the one that came first goes first
	port int
	p    packet
}

func (h *hub) holdLocked(p packet, port int, delay time.Duration) {
	if len(h.held) >= maxHeld {
		h.done.Overflowed++
		return
	}
	h.seq++
	heap.Push(&h.held, heldPacket{time.Now().Add(delay), h.seq, port, p})
	if h.held[0].seq == h.seq {
		select {
		case h.wake <- struct{}{}:
		default:
		}
	}
}

// release sends what was held back when its time has come.
func (h *hub) release() {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		h.mu.Lock()
		var due []heldPacket
		for now := time.Now(); len(h.held) > 0 && !h.held[0].due.After(now); {
			due = append(due, heap.Pop(&h.held).(heldPacket))
		}
		timer.Stop()
		if len(h.held) > 0 {
			timer.Reset(time.Until(h.held[0].due))
		}
		h.mu.Unlock()
		for _, d := range due {
			h.ports[d.port].Write(d.p)
		}
		select {
		case <-timer.C:
		case <-h.wake:
		case <-h.stopped:
			return
		}
	}
}

// heldPackets is a heap, the earliest first.
type heldPackets []heldPacket

func (h heldPackets) Len() int { return len(h) }
func (h heldPackets) Less(i, j int) bool {
	if h[i].due.Equal(h[j].due) {
		return h[i].seq < h[j].seq
	}
	return h[i].due.Before(h[j].due)
}
func (h heldPackets) Swap(i, j int) { h[i], h[j] = h[j], h[i] }
func (h *heldPackets) Push(x any)   { *h = append(*h, x.(heldPacket)) }
func (h *heldPackets) Pop() any {
	last := len(*h) - 1
	x := (*h)[last]
	(*h)[last] = heldPacket{}
	*h = (*h)[:last]
	return x
}

// A packet is an Ethernet frame.
type packet []byte

const (
	ethernetBytes = 14
	udpBytes      = 8
	protocolTCP   = 6
	protocolUDP   = 17
)

func (p packet) clone() packet { return append(packet(nil), p...) }

// destination returns the node that p is for, or true for all. The last byte of a
// node's hardware address is its number, counted from 1.
func (p packet) destination() (node int, all bool) {
	if len(p) < ethernetBytes {
		return -1, false
	}
	if p[0]&1 != 0 {
		return 0, true
	}
	return int(p[5]) - 1, false
}

func (p packet) isIPv4() bool {
	return len(p) > ethernetBytes && binary.BigEndian.Uint16(p[12:]) == 0x0800
}

// corrupt exchanges two 16-bit words of the UDP or TCP payload. The Internet
// checksum is a sum of such words, so no kernel notices. It reports whether p has changed.
func (p packet) corrupt(random *rand.Rand) bool {
	payload := p.payload()
	words := len(payload) / 2
	if words < 2 {
		return false
	}
	for range 8 { // the words may be equal
		a, b := payload[2*random.IntN(words):], payload[2*random.IntN(words):]
		if a[0] != b[0] || a[1] != b[1] {
			a[0], a[1], b[0], b[1] = b[0], b[1], a[0], a[1]
			return true
		}
	}
	return false
}

// payload returns what UDP or TCP carries in p, or nil.
func (p packet) payload() []byte {
	if !p.isIPv4() {
		return nil
	}
	ip := p[ethernetBytes:]
	if len(ip) < 20 {
		return nil
	}
	header, total := int(ip[0]&0xf)*4, int(binary.BigEndian.Uint16(ip[2:]))
	if header < 20 || total < header || total > len(ip) {
		return nil
	}
	rest := ip[header:total]
	switch {
	case ip[9] == protocolUDP && len(rest) >= udpBytes:
		return rest[udpBytes:]
	case ip[9] == protocolTCP && len(rest) >= 20 && len(rest) >= int(rest[12]>>4)*4:
		return rest[int(rest[12]>>4)*4:]
	}
	return nil
}
