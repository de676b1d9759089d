package udpbus

import (
	"encoding/binary"
	"net"
	"net/netip"

	"golang.org/x/net/bpf"
	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"
)

// ipHeader is the offset of the IP header in a socket's filter, where 0 is the UDP header
// (SKF_NET_OFF of linux/filter.h).
const ipHeader = 0xfff00000

// leaveOutOwn has the kernel throw away what came from self before it takes room in the receive buffer of c. Who
// sends to a group at full speed would otherwise copy everything once more, only to recognise it. An error leaves
// things as they are.
func leaveOutOwn(c *net.UDPConn, self netip.AddrPort) error {
	var address []byte // and where it is in the IP header
	var at uint32
	if self.Addr().Is4() {
		a := self.Addr().As4()
		address, at = a[:], ipHeader+12
	} else {
		a := self.Addr().As16()
		address, at = a[:], ipHeader+8
	}
	words := len(address) / 4
	program := []bpf.Instruction{
		bpf.LoadAbsolute{Off: 0, Size: 2},
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: uint32(self.Port()), SkipTrue: uint8(2*words + 1)},
	}
	for i := range words {
		program = append(program,
			bpf.LoadAbsolute{Off: at + uint32(4*i), Size: 4},
			bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: binary.BigEndian.Uint32(address[4*i:]), SkipTrue: uint8(2*(words-i-1) + 1)})
	}
	program = append(program, bpf.RetConstant{Val: 0}, bpf.RetConstant{Val: 1<<32 - 1})
	raw, err := bpf.Assemble(program)
	if err != nil {
		return err
	}
	if self.Addr().Is4() {
		return ipv4.NewPacketConn(c).SetBPF(raw)
	}
	return ipv6.NewPacketConn(c).SetBPF(raw)
}
