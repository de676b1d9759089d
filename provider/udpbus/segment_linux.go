package udpbus

import (
	"encoding/binary"
	"errors"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// sendsSegments reports whether the kernel cuts what it is given into datagrams (UDP_SEGMENT, Linux
// 4.18). One that does not would send it in one piece.
func sendsSegments(fd uintptr) bool {
	_, err := unix.GetsockoptInt(int(fd), unix.IPPROTO_UDP, unix.UDP_SEGMENT)
	return err == nil
}

// receiveSegments has the kernel hand over datagrams of one length in one piece, if it can
// (UDP_GRO, Linux 5.0).
func receiveSegments(fd uintptr) {
	unix.SetsockoptInt(int(fd), unix.IPPROTO_UDP, unix.UDP_GRO, 1)
}

// segmentSize returns the control message that has a piece cut into datagrams of this
// length, the last one perhaps shorter. It is written over what buf holds.
func segmentSize(buf []byte, length int) []byte {
	size := unix.CmsgSpace(2)
	if cap(buf) < size {
		buf = make([]byte, size)
	}
	buf = buf[:size]
	h := (*unix.Cmsghdr)(unsafe.Pointer(&buf[0]))
	h.Level, h.Type = unix.IPPROTO_UDP, unix.UDP_SEGMENT
	h.SetLen(unix.CmsgLen(2))
	binary.NativeEndian.PutUint16(buf[unix.CmsgLen(0):], uint16(length))
	return buf
}

// segmentsRefused reports whether err says that the interface takes no pieces to be cut: it
// computes no checksums, or is of a kind that knows nothing of it.
func segmentsRefused(err error) bool {
	for _, errno := range []error{syscall.EIO, syscall.EINVAL, syscall.EOPNOTSUPP, syscall.ENOPROTOOPT} {
		if errors.Is(err, errno) {
			return true
		}
	}
	return false
}

// controlBytes is the room for what the kernel says of a piece.
var controlBytes = unix.CmsgSpace(4)

// segmentOf returns the length of the datagrams in a piece received with this control
// message, or 0 if it is one.
func segmentOf(control []byte) int {
	for len(control) >= unix.SizeofCmsghdr {
		h, data, rest, err := unix.ParseOneSocketControlMessage(control)
		if err != nil {
			return 0
		}
		if h.Level == unix.IPPROTO_UDP && h.Type == unix.UDP_GRO && len(data) >= 4 {
			return int(int32(binary.NativeEndian.Uint32(data)))
		}
		control = rest
	}
	return 0
}
