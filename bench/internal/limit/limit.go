//go:build linux

// Package limit carries events with nothing but sockets: what a system over TCP or UDP can hope for at best on this
// machine. There is no numbering, no repair and no flow control but the kernel's or the harness's window; tags, where there are any, are
// made and checked with one key.
//
// An event travels as its length in four bytes, big endian, and its bytes. Tags are added to each event, or to each
// batch of events, which then begins with its own length.
package limit

import "github.com/carillon-go/carillon/bench/internal/system"

const (
	writeBytes  = 64 << 10
	smallWrites = 16 << 10
	batchBytes  = 32 << 10
	pathBytes   = 1400 // what fits into a datagram on Ethernet
)

// Windows keep what is on its way below what a receive buffer of 208 KiB holds, the default of Linux, with events of 128 B. The kernel
// counts some 800 bytes for a datagram beside its own.
const (
	windowOfOne   = 256
	windowOfPath  = 1024
	windowOfBatch = 1984
	receiveBuffer = 208 << 10
)

// Systems returns the limits.
func Systems() []system.System {
	const off = "no MAC, no numbering, no repair"
	return []system.System{
		overTCP("limit-tcp", "Go TCP, writes of 64 KiB, no MAC", off, tcpOptions{write: writeBytes}),
		overTCP("limit-tcp-16k", "Go TCP, writes of 16 KiB, no MAC", off, tcpOptions{write: smallWrites}),
		overTCP("limit-tcp-hmac", "Go TCP, HMAC-SHA-256 on each event", "no numbering, no repair", tcpOptions{write: writeBytes, tagger: newHMAC}),
		overTCP("limit-tcp-hmac-batch", "Go TCP, one HMAC-SHA-256 per batch of up to 32 KiB", "no numbering, no repair",
			tcpOptions{write: writeBytes, batch: batchBytes, tagger: newHMAC}),
		overTCP("limit-tcp-gmac-batch", "Go TCP, one AES-GMAC per batch of up to 32 KiB", "no numbering, no repair",
			tcpOptions{write: writeBytes, batch: batchBytes, tagger: newGMAC}),
		overUDP("limit-udp", "UDP multicast, one datagram per event", off, 0, windowOfOne),
		overUDP("limit-udp-1400", "UDP multicast, packed into 1,400 B", off, pathBytes, windowOfPath),
		overUDP("limit-udp-32k", "UDP multicast, packed into 32 KiB", off, batchBytes, windowOfBatch),
	}
}
