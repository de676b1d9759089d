//go:build unix

package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/carillon-go/carillon/provider"
)

const (
	maxFrameBytes = 2048                   // what macOS takes as a datagram by default
	patience      = 500 * time.Millisecond // for one that does not read; what it misses then, the Broker repairs
)

// A socketBus carries frames between processes of one machine. Each instance has a Unix datagram socket in a folder
// that all of them know; a frame is a datagram to every other socket there. So nobody needs to be told of anybody.
type socketBus struct {
	folder, own string                       // own is the name of this instance's socket
	conn        atomic.Pointer[net.UnixConn] // the socket; nil before Start
	closed      atomic.Bool
	reading     sync.WaitGroup
	slow        map[string]bool // sockets that did not take all the last time; of Send, which is never called concurrently
}

func newSocketBus(folder string) *socketBus {
	return &socketBus{folder: folder, own: rand.Text() + ".sock"}
}

func (b *socketBus) Name() string { return "unix" }
func (b *socketBus) Capabilities() provider.Capabilities {
	return provider.Capabilities{MaxFrameBytes: maxFrameBytes, Ordered: true}
}

func (b *socketBus) Start(ctx context.Context, env provider.Env) error {
	if b.closed.Load() {
		return provider.ErrClosed
	}
	if err := b.listen(ctx); err != nil {
		return fmt.Errorf("unix: start: %w (a socket's path has some 100 bytes at most)", err)
	}
	b.reading.Go(func() { b.read(env) })
	return nil
}

// listen makes the socket. The kernel keeps what others send to it until read comes to it.
func (b *socketBus) listen(ctx context.Context) error {
	if err := errors.Join(ctx.Err(), os.MkdirAll(b.folder, 0o700)); err != nil {
		return err
	}
	conn, err := net.ListenUnixgram("unixgram", b.address(b.own))
	if err == nil {
		b.conn.Store(conn)
	}
	return err
}

func (b *socketBus) address(name string) *net.UnixAddr {
	return &net.UnixAddr{Net: "unixgram", Name: filepath.Join(b.folder, name)}
}

func (b *socketBus) read(env provider.Env) {
	buf := make([]byte, maxFrameBytes)
	for !b.closed.Load() {
		conn := b.conn.Load()
		conn.SetReadDeadline(time.Now().Add(time.Second)) // then it looks whether its socket is still there
		if n, err := conn.Read(buf); err == nil {
			// A frame is kept for as long as somebody wants it, so it gets memory of its own.
			env.Deliver(provider.Batch{Frames: [][]byte{bytes.Clone(buf[:n])}})
			continue
		}
		if _, err := os.Lstat(b.address(b.own).Name); err == nil || b.closed.Load() {
			continue // nothing came for a while
		}
		if err := b.listen(context.Background()); err != nil {
			env.Logger.Warn("socket was removed and cannot be made again, trying on", "error", err)
			continue
		}
		conn.Close()
		env.Reconnected() // what was sent in between is lost; who sent it is asked for it
	}
	b.conn.Load().Close()
}

func (b *socketBus) Send(ctx context.Context, frames [][]byte) error {
	if slices.ContainsFunc(frames, func(f []byte) bool { return len(f) > maxFrameBytes }) {
		return provider.ErrFrameTooLarge
	}
	files, err := os.ReadDir(b.folder)
	slow := map[string]bool{}
	for _, file := range files {
		if name := file.Name(); file.Type() == fs.ModeSocket && name != b.own && !b.closed.Load() && ctx.Err() == nil {
			slow[name] = !b.sendTo(name, frames)
		}
	}
	b.slow = slow // nothing of those that are gone
	switch {
	case b.closed.Load():
		return provider.ErrClosed
	case err != nil:
		return fmt.Errorf("unix: %w", err) // nobody can be found: the Broker tries again
	}
	return ctx.Err()
}

// sendTo reports whether an instance took all frames.
func (b *socketBus) sendTo(name string, frames [][]byte) bool {
	conn, err := net.DialUnix("unixgram", nil, b.address(name))
	if errors.Is(err, syscall.ECONNREFUSED) {
		os.Remove(b.address(name).Name) // its process was killed: nobody has the socket open
	}
	if err != nil {
		return true // it is gone
	}
	defer conn.Close()
	wait := patience
	if b.slow[name] { // one that stands still delays the others once
		wait = time.Millisecond
	}
	conn.SetWriteDeadline(time.Now().Add(wait))
	for i := 0; i < len(frames) && err == nil; i++ {
		_, err = conn.Write(frames[i])
	}
	return err == nil
}

func (b *socketBus) Close() error {
	b.closed.Store(true)
	if conn := b.conn.Load(); conn != nil {
		conn.Close() // wakes read
	}
	b.reading.Wait()
	os.Remove(b.address(b.own).Name)
	return nil // what Send accepted is in the others' sockets already
}
