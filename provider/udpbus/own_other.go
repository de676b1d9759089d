//go:build !linux

package udpbus

import (
	"errors"
	"net"
	"net/netip"
)

// leaveOutOwn is for Linux only; the reader leaves out our own.
func leaveOutOwn(*net.UDPConn, netip.AddrPort) error { return errors.ErrUnsupported }
