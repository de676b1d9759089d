package flood

import (
	"bufio"
	"context"
	"crypto/rand"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	mrand "math/rand/v2"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/net/ipv4"

	"github.com/carillon-go/carillon/internal/seal"
	"github.com/carillon-go/carillon/internal/wire"
	"github.com/carillon-go/carillon/provider"
	"github.com/carillon-go/carillon/provider/tcpbus"
	"github.com/carillon-go/carillon/site"
)

// What the process that floods is told, and what it answers at its end.
type (
	orders struct {
		Kind      string // one of kinds, or mixed
		Rate      int    // frames a second
		Group     string // host:port of the multicast group, or
		Endpoint  string // host:port of the victim that is connected to
		Event     wire.ID
		Site      site.ID
		OldKey    site.KeyID // revoked
		OldSecret []byte
		Key       site.KeyID // active; only for connections, which must be proven
		Secret    []byte
	}
	result struct {
		Frames   uint64
		Bytes    uint64
		Answered uint64 // bytes that came back to a socket of the flooder, over UDP
		Seconds  float64
		CPU      float64 // seconds
	}
)

// kinds of forged frames.
var kinds = []string{"random", "wrong tag", "unknown stream", "revoked key", "wrong site", "replay"}

// strangers is what floods without a key over TCP: connections, not frames.
const strangers = "strangers"

const (
	roleVariable = "CARILLON_FLOOD_ORDERS"
	ready        = "ready" // what the flooder says before it begins
)

func TestMain(m *testing.M) {
	if text := os.Getenv(roleVariable); text != "" {
		if err := flood(text); err != nil {
			fmt.Fprintln(os.Stderr, "flooder:", err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// flood is the flooder's whole life: it sends until its standard input ends, where
// it hears what an eavesdropper would.
func flood(text string) error {
	var o orders
	if err := json.Unmarshal([]byte(text), &o); err != nil {
		return err
	}
	f := &forger{orders: o, rand: mrand.New(mrand.NewPCG(1, 2))}
	done := make(chan struct{})
	go func() {
		defer close(done)
		f.eavesdrop(bufio.NewReader(os.Stdin))
	}()
	if o.Kind == strangers {
		return f.strangers(done)
	}
	send, answered, err := f.connect()
	if err != nil {
		return err
	}
	fmt.Println(ready)
	var r result
	start, before := time.Now(), cpu()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for sent := 0; ; {
		select {
		case <-done:
			r.Seconds, r.CPU, r.Answered = time.Since(start).Seconds(), cpu()-before, answered.Load()
			return json.NewEncoder(os.Stdout).Encode(r)
		case <-tick.C:
		}
		due := int(time.Since(start).Seconds() * float64(o.Rate))
		due = min(due, sent+o.Rate/50) // after a pause it does not make up for all of it
		for sent < due {
			batch := f.batch(min(64, due-sent))
			if len(batch) == 0 {
				break // nothing to replay yet
			}
			n, err := send(batch)
			if err != nil {
				return err
			}
			for _, b := range batch[:n] {
				r.Bytes += uint64(len(b))
			}
			r.Frames += uint64(n)
			sent += n
		}
		sent = max(sent, due)
	}
}

func cpu() float64 {
	var u syscall.Rusage
	syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return float64(u.Utime.Sec+u.Stime.Sec) + float64(u.Utime.Usec+u.Stime.Usec)/1e6
}

// A forger makes frames.
type forger struct {
	orders
	rand   *mrand.Rand
	sealer *seal.Sealer // with the revoked key, for oldStream
	turn   int
	number uint64

	mu    sync.Mutex
	heard [][]byte // the last that genuine instances sent
	next  int
}

const remembered = 4096

// eavesdrop reads frames, each after its length, until there are no more.
func (f *forger) eavesdrop(r *bufio.Reader) {
	var length [4]byte
	for {
		if _, err := io.ReadFull(r, length[:]); err != nil {
			return
		}
		frame := make([]byte, binary.BigEndian.Uint32(length[:]))
		if _, err := io.ReadFull(r, frame); err != nil {
			return
		}
		f.mu.Lock()
		if len(f.heard) < remembered {
			f.heard = append(f.heard, frame)
		} else {
			f.heard[f.next] = frame
			f.next = (f.next + 1) % remembered
		}
		f.mu.Unlock()
	}
}

// overheard returns one of the frames heard, or nil.
func (f *forger) overheard() []byte {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.heard) == 0 {
		return nil
	}
	return f.heard[f.rand.IntN(len(f.heard))]
}

func (f *forger) batch(n int) [][]byte {
	var batch [][]byte
	for range n {
		kind := f.Kind
		if kind == "mixed" {
			kind = kinds[f.turn%len(kinds)]
			f.turn++
		}
		if b := f.forge(kind); b != nil {
			batch = append(batch, b)
		}
	}
	return batch
}

// forge returns a frame, or nil while there is nothing to make it from.
func (f *forger) forge(kind string) []byte {
	if kind == "random" {
		b := make([]byte, 1+f.rand.IntN(400))
		rand.Read(b)
		return b
	}
	like := f.overheard()
	if like == nil {
		return nil
	}
	if kind == "replay" {
		return like
	}
	h, err := wire.ParseHeader(like)
	if err != nil {
		return nil
	}
	f.number++
	h.Number += 1000 + f.number // as new as can be, so that no window drops it
	if !h.Type.Control() {
		h.Ordinal += 1000 + f.number
	}
	var b wire.Builder
	b.Reset(1200, 32)
	b.Append(&wire.Event{ID: f.Event, Raiser: f.Event, Payload: []byte(`"forged"`)})
	switch kind {
	case "wrong tag":
	case "unknown stream":
		h.Stream = site.NewStreamID(f.rand.Uint64()%100, f.rand.Uint64())
	case "wrong site":
		h.Site[f.rand.IntN(len(h.Site))] ^= byte(1 + f.rand.IntN(255))
	case "revoked key":
		h.Key = f.OldKey
		frame := b.Finish(h)
		if s := f.oldSealer(h.Stream); s != nil {
			s.Seal(frame)
		}
		return frame
	}
	frame := b.Finish(h)
	binary.BigEndian.PutUint64(frame[len(frame)-8:], f.rand.Uint64())
	return frame
}

// oldSealer seals as somebody does who has got hold of the revoked key.
func (f *forger) oldSealer(stream site.StreamID) *seal.Sealer {
	if f.sealer == nil {
		secret, err := site.NewSecret(f.OldSecret)
		if err != nil {
			return nil
		}
		key := site.Key{ID: f.OldKey, State: site.KeyActive, Suite: site.SuiteGHASHHMAC, Version: wire.Version, Secret: secret}
		f.sealer, _ = seal.NewSealer(key, f.Site, stream)
	}
	return f.sealer
}

// connect returns what sends a batch and says how much of it went, and counts what comes back.
func (f *forger) connect() (send func([][]byte) (int, error), answered *atomic.Uint64, err error) {
	if f.Endpoint != "" {
		return f.connectTCP()
	}
	answered = new(atomic.Uint64)
	conn, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		return nil, nil, err
	}
	p := ipv4.NewPacketConn(conn)
	lo, err := net.InterfaceByName("lo")
	if err != nil {
		return nil, nil, err
	}
	if err := p.SetMulticastInterface(lo); err != nil {
		return nil, nil, err
	}
	group, err := netip.ParseAddrPort(f.Group)
	if err != nil {
		return nil, nil, err
	}
	to := net.UDPAddrFromAddrPort(group)
	go func() {
		buf := make([]byte, 1<<16)
		for {
			n, _, err := conn.ReadFrom(buf)
			if err != nil {
				return
			}
			answered.Add(uint64(n))
		}
	}()
	messages := make([]ipv4.Message, 64)
	return func(batch [][]byte) (int, error) {
		for i, b := range batch {
			messages[i] = ipv4.Message{Buffers: [][]byte{b}, Addr: to}
		}
		return p.WriteBatch(messages[:len(batch)], 0)
	}, answered, nil
}

// connectTCP connects as somebody who holds the active key: nobody else's frames are
// read at all. What comes back to it is what is sent to all.
func (f *forger) connectTCP() (func([][]byte) (int, error), *atomic.Uint64, error) {
	secret, err := site.NewSecret(f.Secret)
	if err != nil {
		return nil, nil, err
	}
	o := seal.NewOpener()
	o.SetKeys([]site.Site{{ID: f.Site, Floors: site.Floors{Version: wire.Version}, Keys: []site.Key{
		{ID: f.Key, State: site.KeyActive, Suite: site.SuiteGHASHHMAC, Version: wire.Version, Secret: secret},
	}}})
	p, err := tcpbus.New(tcpbus.Config{Listen: "127.0.0.1:0", Endpoints: []string{f.Endpoint}, QueueBytes: 4 << 20})
	if err != nil {
		return nil, nil, err
	}
	connected := make(chan struct{})
	var once sync.Once
	err = p.Start(context.Background(), provider.Env{
		Site: f.Site, Sites: []site.ID{f.Site}, Logger: slog.New(slog.DiscardHandler), Keys: proofs{f, o},
		Deliver:     func(provider.Batch) { once.Do(func() { close(connected) }) }, // a heartbeat at the latest
		Reconnected: func() {},
	})
	if err != nil {
		return nil, nil, err
	}
	self := site.NewStreamID(1<<40, f.rand.Uint64())
	p.SetMembers(provider.Members{Self: self})
	select {
	case <-connected:
	case <-time.After(10 * time.Second):
		return nil, nil, fmt.Errorf("no frame from %s in 10 s", f.Endpoint)
	}
	return func(batch [][]byte) (int, error) {
		return len(batch), p.Send(context.Background(), batch)
	}, new(atomic.Uint64), nil
}

type proofs struct {
	f *forger
	o *seal.Opener
}

func (p proofs) Signing() (site.ID, site.KeyID) { return p.f.Site, p.f.Key }

func (p proofs) Prove(s site.ID, k site.KeyID, handshake string, side provider.Side, transcript []byte) ([32]byte, error) {
	return p.o.Prove(s, k, handshake+map[provider.Side]string{provider.Initiator: " initiator", provider.Acceptor: " acceptor"}[side], transcript)
}

func (p proofs) Verify(s site.ID, k site.KeyID, handshake string, side provider.Side, transcript []byte, proof [32]byte) error {
	want, err := p.Prove(s, k, handshake, side, transcript)
	if err != nil || want != proof {
		return provider.ErrProof
	}
	return nil
}

// strangers connects again and again, each time with a hello that could be genuine and a
// proof that cannot, until done is closed.
func (f *forger) strangers(done <-chan struct{}) error {
	fmt.Println(ready)
	var connections, bytes, answered atomic.Uint64
	start, before := time.Now(), cpu()
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() {
			reply := make([]byte, 4096)
			for {
				select {
				case <-done:
					return
				default:
				}
				conn, err := net.DialTimeout("tcp", f.Endpoint, time.Second)
				if err != nil {
					continue
				}
				connections.Add(1)
				conn.SetDeadline(time.Now().Add(time.Second))
				hello := append([]byte("CRLT\x01\x00\x00\x00"), f.Site[:]...)
				hello = binary.BigEndian.AppendUint32(hello, uint32(f.Key))
				stream := site.NewStreamID(1<<40, rand64())
				hello = append(append(hello, stream[:]...), make([]byte, 16+32)...)
				rand.Read(hello[60:])
				n, _ := conn.Write(hello)
				bytes.Add(uint64(n))
				n, err = conn.Read(reply)
				answered.Add(uint64(n))
				if err == nil {
					proof := make([]byte, 32)
					rand.Read(proof)
					n, _ = conn.Write(proof)
					bytes.Add(uint64(n))
					rest, _ := io.Copy(io.Discard, conn)
					answered.Add(uint64(rest))
				}
				conn.Close()
			}
		})
	}
	wg.Wait()
	return json.NewEncoder(os.Stdout).Encode(result{
		Frames: connections.Load(), Bytes: bytes.Load(), Answered: answered.Load(), Seconds: time.Since(start).Seconds(), CPU: cpu() - before,
	})
}

func rand64() uint64 {
	var b [8]byte
	rand.Read(b[:])
	return binary.BigEndian.Uint64(b[:])
}
