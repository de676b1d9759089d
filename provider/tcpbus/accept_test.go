package tcpbus

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"syscall"
	"testing"
	"time"

	"github.com/carillon-go/carillon/provider"
	"github.com/carillon-go/carillon/site"
)

// A caller is the end that dials, played by hand.
type caller struct {
	t    testing.TB
	nc   *net.TCPConn
	keys provider.Keys
	h    hello
}

// call connects to in, which knows nobody else, as the instance with this stream.
func call(t testing.TB, in *instance, stream site.StreamID) *caller {
	t.Helper()
	return &caller{t: t, nc: dialRaw(t, in), keys: testKeys(), h: hello{site: testSite, key: testKey, stream: stream, expected: in.stream, nonce: count32(1)}}
}

func (c *caller) write(b []byte) {
	c.t.Helper()
	if _, err := c.nc.Write(b); err != nil {
		c.t.Fatalf("write: %v", err)
	}
}

func (c *caller) read(n int) []byte {
	c.t.Helper()
	b := make([]byte, n)
	if _, err := io.ReadFull(c.nc, b); err != nil {
		c.t.Fatalf("read %d bytes: %v", n, err)
	}
	return b
}

// hello sends the first message and returns the transcript after the second.
func (c *caller) hello() []byte {
	c.t.Helper()
	c.write(c.h.encode())
	return transcript(c.h.encode(), c.read(answerLen), nil)
}

func (c *caller) prove(seen []byte) [32]byte {
	c.t.Helper()
	proof, err := c.keys.Prove(c.h.site, c.h.key, handshakeName, provider.Initiator, seen)
	if err != nil {
		c.t.Fatal(err)
	}
	return proof
}

// connect does the whole handshake.
func (c *caller) connect() {
	c.t.Helper()
	seen := c.hello()
	proof := c.prove(seen)
	c.write(proof[:])
	reply := [32]byte(c.read(proofLen))
	if err := c.keys.Verify(c.h.site, c.h.key, handshakeName, provider.Acceptor, append(seen, proof[:]...), reply); err != nil {
		c.t.Fatalf("the proof that came back: %v", err)
	}
}

// hungUp fails the test unless the other end closes the connection without
// another byte. A reset is what closing looks like when something was not read.
func (c *caller) hungUp() {
	c.t.Helper()
	b, err := io.ReadAll(c.nc)
	if len(b) > 0 {
		c.t.Errorf("answered with %d bytes: %x", len(b), b)
	}
	if err != nil && !errors.Is(err, syscall.ECONNRESET) {
		c.t.Errorf("read: %v, want the end of the connection", err)
	}
}

func (in *instance) expectNobody(t testing.TB) {
	t.Helper()
	if n := len(in.Peers()); n != 0 {
		t.Errorf("%d peers, want none", n)
	}
	if n := len(in.frames()); n != 0 {
		t.Errorf("%d frames delivered, want none", n)
	}
}

func TestAccept_ProvesItselfAndTakesFrames(t *testing.T) {
	noLeaks(t)
	in := start(t, Config{}, streamID(1))
	in.knows()
	c := call(t, in, streamID(2))
	c.connect()
	c.write(encodeFrames(numbered(0, 10), numbered(1, 10)))
	in.awaitExactly(t, 2)
	in.send(t, []byte("back"))
	if got := c.read(8); !bytes.Equal(got, encodeFrames([]byte("back"))) {
		t.Errorf("read %q", got)
	}
	pe, ok := in.peer(streamID(2))
	if !ok || !pe.Connected || pe.Listed || pe.Dialled || pe.Address != c.nc.LocalAddr().String() || pe.Connections != 1 {
		t.Errorf("peer: %+v, %v", pe, ok)
	}
}

// What the expected stream is for: an endpoint list does not know it.
func TestAccept_TakesCallersThatExpectAnybody(t *testing.T) {
	in := start(t, Config{}, streamID(1))
	in.knows()
	c := call(t, in, streamID(2))
	c.h.expected = site.StreamID{}
	c.connect()
}

func TestAccept_RefusesInSilence(t *testing.T) {
	for _, tt := range []struct {
		name string
		edit func(h *hello)
		want Reason
	}{
		{"another stream expected", func(h *hello) { h.expected = streamID(9) }, ReasonOtherStream},
		{"own stream", func(h *hello) { h.stream = streamID(1) }, ReasonOwnStream},
		{"unknown site", func(h *hello) { h.site[0]++ }, ReasonSite},
		{"zero stream", func(h *hello) { h.stream = site.StreamID{} }, ReasonMalformed},
	} {
		t.Run(tt.name, func(t *testing.T) {
			in := start(t, Config{}, streamID(1))
			in.knows()
			c := call(t, in, streamID(2))
			tt.edit(&c.h)
			c.write(c.h.encode())
			c.hungUp()
			in.awaitRefused(t, tt.want, 1)
			in.expectNobody(t)
		})
	}
}

func TestAccept_RefusesOtherFirstMessages(t *testing.T) {
	valid := (&hello{site: testSite, key: testKey, stream: streamID(2), expected: streamID(1), nonce: count32(1)}).encode()
	edited := func(at int, to byte) []byte {
		b := bytes.Clone(valid)
		b[at] = to
		return b
	}
	for _, tt := range []struct {
		name  string
		bytes []byte
		want  Reason
	}{
		{"HTTP", []byte("GET / HTTP/1.1\r\nHost: example.org\r\nUser-Agent: a program that has lost its way, and asks at length\r\n\r\n"), ReasonMalformed},
		{"zeroes", make([]byte, helloLen), ReasonMalformed},
		{"magic", edited(0, 'X'), ReasonMalformed},
		{"version", edited(4, 2), ReasonVersion},
		{"reserved", edited(6, 1), ReasonMalformed},
		{"a megabyte", append([]byte("CRLT\x02"), make([]byte, 1<<20)...), ReasonVersion},
	} {
		t.Run(tt.name, func(t *testing.T) {
			in := start(t, Config{}, streamID(1))
			in.knows()
			c := call(t, in, streamID(2))
			c.nc.Write(tt.bytes) // may fail: who has heard enough closes
			c.hungUp()
			in.awaitRefused(t, tt.want, 1)
			in.expectNobody(t)
		})
	}
}

func TestAccept_RefusesWrongProofs(t *testing.T) {
	for _, tt := range []struct {
		name string
		edit func(c *caller, seen []byte) [32]byte
		want Reason
	}{
		{"wrong secret", func(c *caller, seen []byte) [32]byte {
			c.keys = wrongKeys()
			return c.prove(seen)
		}, ReasonProof},
		{"as acceptor", func(c *caller, seen []byte) [32]byte {
			proof, _ := c.keys.Prove(c.h.site, c.h.key, handshakeName, provider.Acceptor, seen)
			return proof
		}, ReasonProof},
		{"of another hello", func(c *caller, seen []byte) [32]byte {
			seen[len(transcriptContext)+helloLen-1]++
			return c.prove(seen)
		}, ReasonProof},
		{"of another answer", func(c *caller, seen []byte) [32]byte {
			seen[len(transcriptContext)+helloLen+answerLen-1]++
			return c.prove(seen)
		}, ReasonProof},
		{"zeroes", func(c *caller, seen []byte) [32]byte { return [32]byte{} }, ReasonProof},
		{"oversized", func(c *caller, seen []byte) [32]byte {
			c.write(make([]byte, 4096))
			return c.prove(seen)
		}, ReasonProof},
	} {
		t.Run(tt.name, func(t *testing.T) {
			in := start(t, Config{}, streamID(1))
			in.knows()
			c := call(t, in, streamID(2))
			proof := tt.edit(c, c.hello())
			c.nc.Write(proof[:])
			c.hungUp()
			in.awaitRefused(t, tt.want, 1)
			in.expectNobody(t)
		})
	}
}

func TestAccept_RefusesUnknownKeys(t *testing.T) {
	in := start(t, Config{}, streamID(1))
	in.knows()
	c := call(t, in, streamID(2))
	c.h.key++
	c.keys = secretKeys{testSite, c.h.key, "the site's secret"}
	proof := c.prove(c.hello())
	c.write(proof[:])
	c.hungUp()
	in.awaitRefused(t, ReasonKey, 1)
	in.expectNobody(t)
}

// Everything that a caller sent when it connected, sent again by somebody who
// listened.
func TestAccept_RefusesAReplay(t *testing.T) {
	in := start(t, Config{}, streamID(1))
	in.knows()
	c := call(t, in, streamID(2))
	seen := c.hello()
	proof := c.prove(seen)
	c.write(proof[:])
	c.read(proofLen)

	again := call(t, in, streamID(2))
	again.write(c.h.encode())
	if second := again.read(answerLen); bytes.Equal(second, seen[len(transcriptContext)+helloLen:][:answerLen]) {
		t.Fatal("two handshakes got the same answer")
	}
	again.write(proof[:])
	again.hungUp()
	in.awaitRefused(t, ReasonProof, 1)
}

func TestAccept_TruncatedAtEveryOffset(t *testing.T) {
	noLeaks(t)
	in := start(t, Config{}, streamID(1))
	in.knows()
	for n := range helloLen + proofLen {
		c := call(t, in, streamID(2))
		if n < helloLen {
			c.write(c.h.encode()[:n])
		} else {
			seen := c.hello()
			proof := c.prove(seen)
			c.write(proof[:n-helloLen])
		}
		c.nc.CloseWrite()
		c.hungUp()
	}
	// Two messages that were not begun, all others cut short.
	in.awaitRefused(t, ReasonBroken, 2)
	in.awaitRefused(t, ReasonMalformed, helloLen+proofLen-2)
	in.expectNobody(t)
}

func TestAccept_HangsUpOnWhoIsSlow(t *testing.T) {
	for _, tt := range []struct {
		name string
		send func(c *caller)
	}{
		{"silent", func(c *caller) {}},
		{"half a hello", func(c *caller) { c.write(c.h.encode()[:50]) }},
		{"no proof", func(c *caller) { c.hello() }},
		{"half a proof", func(c *caller) {
			proof := c.prove(c.hello())
			c.write(proof[:16])
		}},
		{"a byte at a time", func(c *caller) {
			go func() {
				for _, b := range c.h.encode() {
					<-time.After(20 * time.Millisecond) // each byte in time, all of them not
					if _, err := c.nc.Write([]byte{b}); err != nil {
						return
					}
				}
			}()
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			in := start(t, Config{HandshakeTimeout: 200 * time.Millisecond}, streamID(1))
			in.knows()
			c := call(t, in, streamID(2))
			tt.send(c)
			c.hungUp()
			in.awaitRefused(t, ReasonTimeout, 1)
			in.expectNobody(t)
		})
	}
}

func TestAccept_BoundsUnprovenConnections(t *testing.T) {
	noLeaks(t)
	for _, tt := range []struct {
		name                string
		all, perAddress, in int
	}{
		{"in all", 64, 100, 64},
		{"of one address", 64, 16, 16},
	} {
		t.Run(tt.name, func(t *testing.T) {
			in := start(t, Config{}, streamID(1), withLimits(func(l *limits) { l.unproven, l.unprovenPerAddress = tt.all, tt.perAddress }))
			in.knows()
			var calls []*caller
			for range 100 {
				calls = append(calls, call(t, in, streamID(2)))
			}
			in.awaitRefused(t, ReasonBusy, uint64(100-tt.in))
			in.Provider.mu.Lock()
			n := len(in.unproven)
			in.Provider.mu.Unlock()
			if n != tt.in {
				t.Errorf("%d connections are being checked, want %d", n, tt.in)
			}
			// Those that were let in first are served; a place that becomes free is used.
			calls[0].connect()
			eventually(t, "a free place", func() bool {
				in.Provider.mu.Lock()
				defer in.Provider.mu.Unlock()
				return len(in.unproven) == tt.in-1
			})
			call(t, in, streamID(3)).connect()
		})
	}
}

func TestAccept_RefusesForeignNetworks(t *testing.T) {
	in := start(t, Config{AllowNetworks: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}}, streamID(1))
	in.knows()
	c := call(t, in, streamID(2))
	c.hungUp()
	in.awaitRefused(t, ReasonNetwork, 1)
	in.expectNobody(t)
}

// Others may read our row and dial before we are told that it is committed.
func TestAccept_WaitsUntilItsOwnStreamIsKnown(t *testing.T) {
	in := start(t, Config{}, streamID(1))
	c := call(t, in, streamID(2))
	c.write(c.h.encode())
	c.nc.SetReadDeadline(time.Now().Add(100 * time.Millisecond)) // what must not happen
	if _, err := c.nc.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("before SetMembers: %v, want silence", err)
	}
	c.nc.SetReadDeadline(time.Now().Add(patience))
	in.knows()
	seen := transcript(c.h.encode(), c.read(answerLen), nil)
	proof := c.prove(seen)
	c.write(proof[:])
	c.read(proofLen)
}

func TestAccept_GivesUpWaitingForItsOwnStream(t *testing.T) {
	noLeaks(t)
	in := start(t, Config{HandshakeTimeout: 50 * time.Millisecond}, streamID(1))
	c := call(t, in, streamID(2))
	c.write(c.h.encode())
	c.hungUp()
	in.awaitRefused(t, ReasonTimeout, 1)
}

func TestAccept_CloseEndsUnprovenConnections(t *testing.T) {
	noLeaks(t)
	in := start(t, Config{}, streamID(1))
	c := call(t, in, streamID(2)) // waits for SetMembers
	other := start(t, Config{}, streamID(3))
	other.knows()
	d := call(t, other, streamID(2)) // waits for a hello
	in.Close()
	other.Close()
	c.hungUp()
	d.hungUp()
}

func TestAccept_BoundsPeersWithoutARow(t *testing.T) {
	in := start(t, Config{}, streamID(1), withLimits(func(l *limits) { l.unlisted = 3 }))
	in.knows()
	for i := range byte(3) {
		call(t, in, streamID(10+i)).connect()
	}
	c := call(t, in, streamID(20))
	proof := c.prove(c.hello())
	c.write(proof[:])
	c.hungUp()
	in.awaitRefused(t, ReasonBusy, 1)
}

// Every Send that begins when a caller has heard that it is accepted reaches it.
func TestAccept_IncludesThePeerFromItsProofOn(t *testing.T) {
	in := start(t, Config{}, streamID(1))
	in.knows()
	for i := range byte(50) {
		c := call(t, in, streamID(10+i))
		c.connect()
		in.send(t, numbered(uint64(i), 8))
		if got := c.read(12); binary.BigEndian.Uint64(got[4:]) != uint64(i) {
			t.Fatalf("peer %d: read %x", i, got)
		}
	}
}

func TestAccept_EndsAConnectionWithAnImpossibleFrame(t *testing.T) {
	in := start(t, Config{}, streamID(1))
	in.knows()
	c := call(t, in, streamID(2))
	c.connect()
	c.write(binary.BigEndian.AppendUint32(encodeFrames(numbered(0, 8)), maxFrameBytes+1))
	c.hungUp()
	in.awaitExactly(t, 1)
	eventually(t, "not connected", func() bool { pe, _ := in.peer(streamID(2)); return !pe.Connected })
}
