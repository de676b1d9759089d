package tcpbus

import (
	"errors"
	"io"
	"testing"
)

// begun returns a connection that has been written to without waiting until the kernel took no more, in the
// middle of a frame, with what is left in the queue of its peer. The goroutine of the connection waits for c.writing, which is held.
func begun(t *testing.T) (c *conn, other io.Reader) {
	t.Helper()
	p := newTest(t, Config{})
	raw, far := pair(t)
	raw.SetWriteBuffer(64 << 10)
	pe := &peer{queue: newQueue(64 << 20)}
	c = p.newConnLocked(pe, raw, raw, true)
	p.tasks.Go(func() { c.write(nil) })
	eventually(t, "the goroutine waits", func() bool {
		c.writing.Lock()
		if c.out != nil {
			return true // and keep the lock
		}
		c.writing.Unlock()
		return false
	})
	for i := range uint64(1000) {
		pe.queue.put([][]byte{numbered(i, 30_001)})
	}
	for n := 0; c.out.begun == 0; n++ {
		if n == 1000 {
			t.Fatal("the kernel takes everything, or ends with a frame each time")
		}
		if _, err := c.writeSome(writeBytes, c.out.writeNow); err != nil {
			t.Fatal(err)
		}
	}
	return c, far
}

// read returns the numbers of the frames that arrive until the stream ends, which must be between two of them.
func readToEnd(t *testing.T, r io.Reader) (ns []uint64) {
	t.Helper()
	frames := newFrameReader(r, maxFrameBytes)
	for {
		batch, err := frames.next()
		if errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
			return ns
		}
		if err != nil {
			t.Fatalf("after %d frames: %v", len(ns), err)
		}
		ns = append(ns, numbers(t, batch)...)
	}
}

func TestWriteNow_StopsBetweenTwoFrames(t *testing.T) {
	c, far := begun(t)
	c.mode.Store(modeStop)
	poke(c.wake)
	c.writing.Unlock()
	got := readToEnd(t, far)
	if left := numbers(t, c.peer.queue.peek(nil, 1<<30)); len(left) == 0 || left[0] != uint64(len(got)) {
		t.Errorf("%d frames arrived, and frame %v is the first that is left", len(got), left[:1])
	}
}

func TestWriteNow_WhatWaitsFollowsWithoutAHole(t *testing.T) {
	c, far := begun(t)
	c.mode.Store(modeFlush)
	poke(c.wake)
	c.writing.Unlock()
	for i, n := range readToEnd(t, far) {
		if n != uint64(i) {
			t.Fatalf("frame %d in place %d", n, i)
		}
	}
	if !c.peer.queue.empty() {
		t.Error("something is left in the queue")
	}
}
