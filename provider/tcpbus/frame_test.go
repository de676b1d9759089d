package tcpbus

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"runtime"
	"slices"
	"testing"
	"testing/iotest"
	"time"
)

func encodeFrames(frames ...[]byte) []byte {
	var b []byte
	for _, f := range frames {
		b = binary.BigEndian.AppendUint32(b, uint32(len(f)))
		b = append(b, f...)
	}
	return b
}

// readAll returns copies of all frames and the error behind them.
func readAll(r io.Reader, maxFrame int) ([][]byte, error) {
	var all [][]byte
	f := newFrameReader(r, maxFrame)
	for {
		batch, err := f.next()
		if err != nil {
			return all, err
		}
		for _, b := range batch {
			all = append(all, bytes.Clone(b))
		}
	}
}

func TestFrameReader_CutsFramesWhateverTheReads(t *testing.T) {
	frames := [][]byte{
		{}, []byte("a"), numbered(1, 100), numbered(2, readBuffer-2*prefixLen), numbered(3, readBuffer), {},
		numbered(4, 3*readBuffer+1), numbered(5, 8), numbered(6, maxFrameBytes), []byte("z"),
	}
	wire := encodeFrames(frames...)
	for _, tt := range []struct {
		name string
		r    io.Reader
	}{
		{"all at once", bytes.NewReader(wire)},
		{"one byte at a time", iotest.OneByteReader(bytes.NewReader(wire))},
		{"halves", iotest.HalfReader(bytes.NewReader(wire))},
		{"error with the last bytes", iotest.DataErrReader(bytes.NewReader(wire))},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := readAll(tt.r, maxFrameBytes)
			if err != io.EOF {
				t.Errorf("after the last frame: %v, want io.EOF", err)
			}
			if !slices.EqualFunc(got, frames, bytes.Equal) {
				t.Errorf("%d frames came out, want the %d that went in", len(got), len(frames))
			}
		})
	}
}

// What arrived together is one batch.
func TestFrameReader_ReturnsWholeBufferAsOneBatch(t *testing.T) {
	var frames [][]byte
	for i := range 100 {
		frames = append(frames, numbered(uint64(i), 50))
	}
	batch, err := newFrameReader(bytes.NewReader(encodeFrames(frames...)), maxFrameBytes).next()
	if err != nil || len(batch) != len(frames) {
		t.Errorf("next returned %d frames, %v, want %d", len(batch), err, len(frames))
	}
}

func TestFrameReader_TruncatedAtEveryOffset(t *testing.T) {
	frames := [][]byte{numbered(1, 20), numbered(2, 30)}
	wire := encodeFrames(frames...)
	for n := range wire {
		whole, want := 0, io.ErrUnexpectedEOF
		switch {
		case n == 0:
			want = io.EOF
		case n == 24:
			whole, want = 1, io.EOF
		case n > 24:
			whole = 1
		}
		got, err := readAll(bytes.NewReader(wire[:n]), maxFrameBytes)
		if len(got) != whole || err != want {
			t.Errorf("%d of %d bytes: %d frames, %v, want %d, %v", n, len(wire), len(got), err, whole, want)
		}
	}
}

func TestFrameReader_RefusesLengthBeforeItAllocates(t *testing.T) {
	for _, n := range []uint32{101, 1 << 20, 1 << 31, 1<<32 - 1} {
		wire := binary.BigEndian.AppendUint32(encodeFrames([]byte("whole")), n)
		f := newFrameReader(io.MultiReader(bytes.NewReader(wire), iotest.ErrReader(errors.New("read on"))), 100)
		if batch, err := f.next(); err != nil || len(batch) != 1 {
			t.Fatalf("length %d: the frame before it: %q, %v", n, batch, err)
		}
		if _, err := f.next(); !errors.Is(err, errFrameLength) {
			t.Errorf("length %d: %v, want errFrameLength", n, err)
		}
		if len(f.buf) > readBuffer {
			t.Errorf("length %d: a buffer of %d bytes", n, len(f.buf))
		}
	}
}

// Frames are immutable for ever: what is read later leaves earlier ones alone.
func TestFrameReader_NeverReusesMemoryOfFrames(t *testing.T) {
	var frames [][]byte
	for i := range 3000 {
		frames = append(frames, bytes.Repeat([]byte{byte(i)}, 1+i*37%5000))
	}
	r := newFrameReader(&varied{b: encodeFrames(frames...)}, maxFrameBytes)
	var got [][]byte
	for {
		batch, err := r.next()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, batch...)
	}
	if !slices.EqualFunc(got, frames, bytes.Equal) {
		t.Errorf("%d frames kept, want the %d that went in, unchanged", len(got), len(frames))
	}
	for i, f := range got {
		if cap(f) != len(f) {
			t.Fatalf("frame %d can be appended to over its neighbour: length %d, capacity %d", i, len(f), cap(f))
		}
	}
}

// varied reads a little more each time, from nearly nothing to whole buffers.
type varied struct {
	b []byte
	n int
}

func (v *varied) Read(p []byte) (int, error) {
	v.n = (v.n + 1021) % (2 * readBuffer)
	c := chunks{v.b, v.n + 1}
	n, err := c.Read(p)
	v.b = c.b
	return n, err
}

// A receiver that keeps one small frame keeps little beside it.
func TestFrameReader_SmallFramesPinLittle(t *testing.T) {
	frame := numbered(1, 100)
	pr, pw := io.Pipe()
	defer pw.Close()
	go func() {
		for {
			if _, err := pw.Write(encodeFrames(frame)); err != nil {
				return
			}
		}
	}()
	defer pr.Close()
	r := newFrameReader(pr, maxFrameBytes)
	first, err := r.next()
	if err != nil || len(first) != 1 {
		t.Fatal(len(first), err)
	}
	buffer := &r.buf[0]
	for range 10 {
		batch, err := r.next()
		if err != nil || len(batch) != 1 {
			t.Fatal(len(batch), err)
		}
		if &r.buf[0] != buffer {
			t.Fatal("a lone small frame took the whole buffer with it")
		}
	}
}

// Whoever keeps one frame of many keeps that one, whatever came with it: a repair cache that counts
// its bytes would hold many times what it counts.
func TestFrameReader_AKeptFramePinsNoNeighbour(t *testing.T) {
	const rounds = 300
	junk, small := make([]byte, 30<<10), numbered(1, 100)
	pr, pw := io.Pipe()
	defer pr.Close()
	go func() {
		defer pw.Close()
		for range rounds {
			pw.Write(encodeFrames(junk, small, junk))
		}
	}()
	heap := func() uint64 {
		runtime.GC()
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	before := heap()
	r := newFrameReader(pr, maxFrameBytes)
	var kept [][]byte
	for {
		batch, err := r.next()
		if err != nil {
			break
		}
		for _, f := range batch {
			if len(f) == len(small) {
				kept = append(kept, f)
			}
		}
	}
	grown := heap() - before
	if len(kept) != rounds {
		t.Fatalf("%d frames, want %d", len(kept), rounds)
	}
	if most := uint64(rounds*512 + 4*readBuffer); grown > most {
		t.Errorf("%d kept frames of %d bytes hold %d bytes, at most %d may be", rounds, len(small), grown, most)
	}
	runtime.KeepAlive(kept)
	runtime.KeepAlive(r)
}

func FuzzFrameReader(f *testing.F) {
	f.Add(encodeFrames([]byte("one"), nil, []byte("three")), uint8(3))
	f.Add([]byte{0xff, 0xff, 0xff, 0xff, 1, 2, 3}, uint8(1))
	f.Add([]byte{0, 0, 0, 5, 1, 2}, uint8(0))
	f.Fuzz(func(t *testing.T, wire []byte, chunk uint8) {
		const maxFrame = 300
		// The same bytes in other portions are the same frames.
		whole, errWhole := readAll(bytes.NewReader(wire), maxFrame)
		parts, errParts := readAll(&chunks{wire, int(chunk)%17 + 1}, maxFrame)
		if !slices.EqualFunc(whole, parts, bytes.Equal) {
			t.Errorf("read at once %d frames, in portions %d", len(whole), len(parts))
		}
		if (errWhole == io.EOF) != (errParts == io.EOF) || errors.Is(errWhole, errFrameLength) != errors.Is(errParts, errFrameLength) {
			t.Errorf("read at once %v, in portions %v", errWhole, errParts)
		}
		back := encodeFrames(whole...)
		if !bytes.HasPrefix(wire, back) {
			t.Errorf("frames %x are no prefix of what was read, %x", back, wire)
		}
		if errWhole == io.EOF && len(back) != len(wire) {
			t.Errorf("a clean end after %d of %d bytes", len(back), len(wire))
		}
	})
}

// chunks reads n bytes at a time.
type chunks struct {
	b []byte
	n int
}

func (c *chunks) Read(p []byte) (int, error) {
	if len(c.b) == 0 {
		return 0, io.EOF
	}
	n := copy(p[:min(len(p), c.n)], c.b)
	c.b = c.b[n:]
	return n, nil
}

// pair returns the two ends of a TCP connection.
func pair(t testing.TB) (a, b *net.TCPConn) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	nc, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	other, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { nc.Close(); other.Close() })
	return nc.(*net.TCPConn), other.(*net.TCPConn)
}

// tlsPair returns the two ends of a TLS connection.
func tlsPair(t testing.TB) (client, server *tls.Conn) {
	t.Helper()
	a, b := pair(t)
	cfg := tlsConfig(t)
	client, server = tls.Client(a, cfg), tls.Server(b, cfg)
	done := make(chan error, 1)
	go func() { done <- server.HandshakeContext(context.Background()) }()
	if err := client.HandshakeContext(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	return client, server
}

func TestFrameWriter_WritesWhatTheReaderReads(t *testing.T) {
	var frames [][]byte
	for i := range 2000 {
		length := i * 7919 % 9000
		if i%100 == 0 {
			length = i * 131 // some longer than the scratch space
		}
		frames = append(frames, numbered(uint64(i), length))
	}
	frames = append(frames, []byte{}, numbered(1, maxFrameBytes), []byte{})
	tcp, tcpPeer := pair(t)
	secured, securedPeer := tlsPair(t)
	for _, tt := range []struct {
		name     string
		from, to net.Conn
	}{
		{"TCP", tcp, tcpPeer},
		{"TLS", secured, securedPeer},
	} {
		t.Run(tt.name, func(t *testing.T) {
			done := make(chan error, 1)
			go func() {
				w := newFrameWriter(tt.from, patience)
				for rest := frames; len(rest) > 0; {
					n, err := w.write(rest)
					if err != nil || n == 0 {
						done <- err
						return
					}
					rest = rest[n:]
				}
				done <- tt.from.(interface{ CloseWrite() error }).CloseWrite()
			}()
			got, err := readAll(tt.to, maxFrameBytes)
			if err != io.EOF {
				t.Errorf("read: %v, want io.EOF", err)
			}
			if err := <-done; err != nil {
				t.Errorf("write: %v", err)
			}
			if !slices.EqualFunc(got, frames, bytes.Equal) {
				t.Errorf("%d frames came out, want the %d that went in", len(got), len(frames))
			}
		})
	}
}

// What write calls not whole is never received whole, so that it can be
// written to another connection; what it calls whole is.
func TestFrameWriter_CountsWholeFramesWhenCutOff(t *testing.T) {
	for _, length := range []int{10, 1500, 5000, 300_000} {
		for _, kind := range []string{"TCP", "TLS"} {
			var frames [][]byte
			for i := range 40_000_000 / (length + 300) {
				frames = append(frames, numbered(uint64(i), length))
			}
			var from, to net.Conn
			if kind == "TCP" {
				from, to = pair(t)
			} else {
				from, to = tlsPair(t)
			}
			raw, ok := from.(*net.TCPConn)
			if !ok {
				raw = from.(*tls.Conn).NetConn().(*net.TCPConn)
			}
			raw.SetWriteBuffer(64 << 10)
			w := newFrameWriter(from, time.Millisecond)
			whole := 0
			for {
				n, err := w.write(frames[whole:]) // the other end reads nothing, so this stops
				whole += n
				if err != nil {
					break
				}
				if whole == len(frames) {
					t.Fatalf("%s, length %d: the kernel took %d frames", kind, length, whole)
				}
			}
			raw.CloseWrite()
			got, err := readAll(to, maxFrameBytes)
			if err == nil || len(got) != whole {
				t.Errorf("%s, length %d: %d frames arrived, then %v; write said %d", kind, length, len(got), err, whole)
			}
			if err := exactly(numbers(t, got), whole); err != nil {
				t.Error(err)
			}
		}
	}
}

// A slow reader that does read is not given up.
func TestFrameWriter_TimeoutBeginsAgainWithProgress(t *testing.T) {
	from, to := pair(t)
	from.SetWriteBuffer(16 << 10)
	to.SetReadBuffer(16 << 10)
	const timeout = 700 * time.Millisecond
	begin := time.Now()
	done := make(chan error, 1)
	var frames [][]byte
	for i := range 60 {
		frames = append(frames, numbered(uint64(i), 16<<10))
	}
	go func() {
		defer from.Close()
		w := newFrameWriter(from, timeout)
		for rest := frames; len(rest) > 0; {
			n, err := w.write(rest)
			if err != nil {
				done <- err
				return
			}
			rest = rest[n:]
		}
		done <- from.CloseWrite()
	}()
	got, err := readAll(&paced{r: to, every: 20 * time.Millisecond, bytes: 8 << 10}, maxFrameBytes)
	if err != io.EOF || len(got) != len(frames) {
		t.Errorf("%d frames, %v, want %d", len(got), err, len(frames))
	}
	if err := <-done; err != nil {
		t.Errorf("write: %v after %v, although it made progress all the time", err, time.Since(begin))
	}
}

// paced reads at most so many bytes at every tick.
type paced struct {
	r     io.Reader
	every time.Duration
	bytes int
}

func (p *paced) Read(b []byte) (int, error) {
	<-time.After(p.every)
	return p.r.Read(b[:min(len(b), p.bytes)])
}
