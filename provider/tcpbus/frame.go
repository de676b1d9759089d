package tcpbus

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"time"
)

const (
	prefixLen  = 4         // length of a frame, big endian, before its bytes
	readBuffer = 32 << 10  // at first
	readMost   = 256 << 10 // after reads that filled it; more is taken only for a frame that is longer

	writeScratch = 64 << 10  // prefixes and small frames of one write
	writeBytes   = 128 << 10 // of one write, about; it stays in the cache while it is written to one peer after the other
	writeSlices  = 1024      // of one write; the kernel takes no more
	writeRounds  = 8         // writes in a row without waiting, before the next peer has its turn
)

// errFrameLength reports a length that no frame may have. What follows cannot be
// understood, so it ends the connection.
var errFrameLength = errors.New("tcp: length of a frame out of range")

// A frameReader cuts a byte stream into frames. It is not safe for concurrent
// use.
type frameReader struct {
	r      io.Reader
	max    int    // largest frame
	buf    []byte // buf[start:end] was read and not returned
	start  int
	end    int
	filled bool     // the last read filled buf, so that a larger one would have taken more
	frames [][]byte // reused between calls
}

func newFrameReader(r io.Reader, maxFrame int) *frameReader {
	return &frameReader{r: r, max: maxFrame}
}

// next returns all whole frames that were read, waiting for one at least. Their
// bytes are never changed or reused; the slice that holds them is, by the
// following call. After an error there is nothing more. io.EOF means that the
// stream ended between two frames.
func (f *frameReader) next() ([][]byte, error) {
	clear(f.frames)
	f.frames = f.frames[:0]
	for {
		// used is the length of the whole frames at the front, need that of the one behind
		// them as far as it is known.
		used, need, err := f.scan()
		if used > 0 {
			f.cut(used)
			return f.frames, nil // an error shows again at the next call
		}
		if err != nil {
			return nil, err
		}
		f.reserve(need)
		n, err := f.r.Read(f.buf[f.end:])
		f.end += n
		f.filled = f.end == len(f.buf)
		if n == 0 && err != nil {
			if err == io.EOF && f.end > f.start {
				err = io.ErrUnexpectedEOF
			}
			return nil, err
		}
	}
}

// scan looks for frame boundaries in what was read.
func (f *frameReader) scan() (used, need int, err error) {
	for b := f.buf[f.start:f.end]; ; {
		if len(b)-used < prefixLen {
			return used, prefixLen, nil
		}
		n := binary.BigEndian.Uint32(b[used:])
		if uint64(n) > uint64(f.max) {
			return used, 0, fmt.Errorf("%w: %d bytes, at most %d are taken", errFrameLength, n, f.max)
		}
		need = prefixLen + int(n)
		if len(b)-used < need {
			return used, need, nil
		}
		used += need
	}
}

// cut appends the frames in the first n bytes that were read to f.frames. Each has memory of
// its own, because of frames that arrive together one may be kept for long and the others
// not, and whoever keeps it counts its bytes and not those of its neighbours. Only one for which the
// buffer was made stays where it is, and the buffer is given away with it.
func (f *frameReader) cut(n int) {
	given := false
	for end := f.start + n; f.start < end; {
		b := f.buf[f.start:f.end]
		size := prefixLen + int(binary.BigEndian.Uint32(b))
		frame := b[prefixLen:size:size]
		if size <= readMost {
			frame = slices.Clip(bytes.Clone(frame))
		} else {
			given = true
		}
		f.frames = append(f.frames, frame)
		f.start += size
	}
	switch {
	case given:
		rest := f.buf[f.start:f.end]
		f.buf = make([]byte, max(readMost, len(rest)))
		f.start, f.end = 0, copy(f.buf, rest)
	case f.start == f.end:
		f.start, f.end = 0, 0
	}
}

// reserve makes room for need bytes from start, and for one byte more than was
// read.
func (f *frameReader) reserve(need int) {
	size := max(readBuffer, len(f.buf), need)
	if f.filled && size < readMost {
		size = min(2*size, readMost)
	}
	if f.start+need <= len(f.buf) && f.end < len(f.buf) && size == len(f.buf) {
		return
	}
	to := f.buf
	if size > len(f.buf) {
		to = make([]byte, size)
	}
	f.start, f.end = 0, copy(to, f.buf[f.start:f.end])
	f.buf, f.filled = to, false
}

// A frameWriter turns frames into as few writes as possible. It is not safe for
// concurrent use.
type frameWriter struct {
	conn    net.Conn      // what is written to; a *net.TCPConn takes many slices at once
	timeout time.Duration // for the other end to take anything
	small   int           // frames up to this length are copied, longer ones referred to
	now     *nowWriter    // nil: conn cannot be written to without waiting

	begun   int // bytes of the next frame, its prefix included, that were written already
	scratch []byte
	array   [][]byte // backs the slices of one write
}

func newFrameWriter(conn net.Conn, timeout time.Duration) *frameWriter {
	w := &frameWriter{conn: conn, timeout: timeout, now: newNowWriter(conn), scratch: make([]byte, 0, writeScratch), small: 2 << 10}
	if _, ok := conn.(*net.TCPConn); !ok {
		w.small = 16 << 10 // TLS copies anyway, and every write costs it a record
	}
	return w
}

// write writes frames from the front and returns how many it has handed over
// whole; without an error that is one at least. Those after them may be written again on another
// connection: of the first of them the kernel has a part at most. On the same connection
// they must follow, since that part was written.
func (w *frameWriter) write(frames [][]byte) (whole int, err error) {
	return w.writeWith(w.flush, frames)
}

// writeNow is write for what the kernel takes without waiting, which may be nothing. It does
// nothing unless w.now is set.
func (w *frameWriter) writeNow(frames [][]byte) (whole int, err error) {
	return w.writeWith(w.now.write, frames)
}

func (w *frameWriter) writeWith(flush func([][]byte) (int64, error), frames [][]byte) (whole int, err error) {
	slices, n := w.gather(frames)
	written, err := flush(behind(slices, w.begun))
	clear(w.array) // no reference to frames that were written
	written += int64(w.begun)
	for whole < n && written >= int64(prefixLen+len(frames[whole])) {
		written -= int64(prefixLen + len(frames[whole]))
		whole++
	}
	w.begun = int(written)
	return whole, err
}

// behind returns slices without their first n bytes.
func behind(slices [][]byte, n int) [][]byte {
	for n > 0 && n >= len(slices[0]) {
		n -= len(slices[0])
		slices = slices[1:]
	}
	if n > 0 {
		slices[0] = slices[0][n:]
	}
	return slices
}

// gather lays out the first n frames for one write.
func (w *frameWriter) gather(frames [][]byte) (slices [][]byte, n int) {
	scratch, mark, total := w.scratch[:0], 0, 0
	slices = w.array[:0]
	for _, f := range frames {
		add := prefixLen
		if len(f) <= w.small {
			add += len(f)
		}
		if len(scratch)+add > cap(scratch) || len(slices)+3 > writeSlices || n > 0 && total+len(f) > writeBytes {
			break
		}
		scratch = binary.BigEndian.AppendUint32(scratch, uint32(len(f)))
		if len(f) <= w.small {
			scratch = append(scratch, f...)
		} else {
			slices = append(slices, scratch[mark:], f)
			mark = len(scratch)
		}
		total += prefixLen + len(f)
		n++
	}
	if len(scratch) > mark {
		slices = append(slices, scratch[mark:])
	}
	w.array = slices
	return slices, n
}

// flush writes slices. The time allowed begins again whenever something was
// taken, so that a slow reader is not mistaken for a dead one.
func (w *frameWriter) flush(slices [][]byte) (written int64, err error) {
	if tcp, ok := w.conn.(*net.TCPConn); ok {
		rest := net.Buffers(slices)
		for {
			w.conn.SetWriteDeadline(time.Now().Add(w.timeout))
			n, err := rest.WriteTo(tcp)
			written += n
			if n == 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
				return written, err
			}
		}
	}
	for _, s := range slices {
		w.conn.SetWriteDeadline(time.Now().Add(w.timeout))
		n, err := w.conn.Write(s)
		written += int64(n)
		if err != nil {
			return written, err
		}
	}
	return written, nil
}
