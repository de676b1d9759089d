//go:build linux

// Package board is the memory that the processes of one run share: a file, mapped by all of them, in which each
// writes how far it has come.
package board

import (
	"errors"
	"fmt"
	"os"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A Slot is one process's. Only that process writes to it.
type Slot struct {
	// Events is how many different events of all phases were received, or, for the publisher, published. It is
	// written every few events, and at the end of a phase.
	Events atomic.Uint64
	// FinishedAt is when the last event of the phase was received, by the monotonic clock of
	// the machine in nanoseconds; 0 before.
	FinishedAt atomic.Int64
	_          [slotBytes - 16]byte
}

// slotBytes keeps slots on cache lines of their own, and away from the neighbour that the processor fetches too.
const slotBytes = 256

// A Board is the mapping. Slot 0 is the publisher's.
type Board struct {
	mem   []byte
	slots []Slot
}

// Create makes the file with slots for a publisher and so many subscribers.
func Create(path string, subscribers int) (*Board, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if err := f.Truncate(int64(subscribers+1) * slotBytes); err != nil {
		return nil, err
	}
	return mapped(f)
}

// Open maps a file that Create has made.
func Open(path string) (*Board, error) {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return mapped(f)
}

func mapped(f *os.File) (*Board, error) {
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	size := int(info.Size())
	if size == 0 || size%slotBytes != 0 {
		return nil, fmt.Errorf("board %s: %d bytes are no whole number of slots", f.Name(), size)
	}
	mem, err := unix.Mmap(int(f.Fd()), 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, fmt.Errorf("board %s: map it: %w", f.Name(), err)
	}
	return &Board{mem, unsafe.Slice((*Slot)(unsafe.Pointer(&mem[0])), size/slotBytes)}, nil
}

// Close unmaps the memory. Nobody may use a slot afterwards.
func (b *Board) Close() error {
	if b.mem == nil {
		return errors.New("board: closed already")
	}
	mem := b.mem
	b.mem, b.slots = nil, nil
	return unix.Munmap(mem)
}

// Publisher returns the publisher's slot.
func (b *Board) Publisher() *Slot { return &b.slots[0] }

// Subscribers returns those of the subscribers.
func (b *Board) Subscribers() []Slot { return b.slots[1:] }

// Slowest returns how many events the slowest subscriber has received.
func (b *Board) Slowest() uint64 {
	low := ^uint64(0)
	for i := range b.Subscribers() {
		low = min(low, b.slots[i+1].Events.Load())
	}
	return low
}
