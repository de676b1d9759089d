//go:build linux

package lab

import (
	"bytes"
	"errors"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

func newLab(t *testing.T, cfg Config) *Lab {
	t.Helper()
	if err := Check(); err != nil { // as package labtest does it, which imports this one
		if os.Getenv("CARILLON_NO_SKIP") == "1" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	l, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	return l
}

const port = 24482

var group = netip.AddrPortFrom(netip.AddrFrom4([4]byte{239, 255, 67, 82}), port)

// A socket is a member of a multicast group in one node.
type socket struct {
	t    *testing.T
	conn *net.UDPConn
}

func sockets(t *testing.T, l *Lab) []socket {
	t.Helper()
	var all []socket
	for _, n := range l.Nodes {
		var conn *net.UDPConn
		if err := l.thread.in(n.Namespace, func() error {
			nic, err := net.InterfaceByName(EventInterface)
			if err != nil {
				return err
			}
			// Without a route, the system does not know where to send to the group.
			if err := run("", "ip", "route", "add", "239.0.0.0/8", "dev", EventInterface); err != nil {
				return err
			}
			conn, err = net.ListenMulticastUDP("udp4", nic, net.UDPAddrFromAddrPort(group))
			return err
		}); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		all = append(all, socket{t, conn})
	}
	for i := range all { // each as sender, since a bridge learns ports one by one
		others := slices.Concat(all[:i], all[i+1:])
		all[i].reaches(group, []byte("are you there?"), others...)
		for all[i].next(50*time.Millisecond) != nil { // its own, if the system gives them back
		}
	}
	return all
}

func (s socket) send(to netip.AddrPort, b []byte) {
	s.t.Helper()
	if _, err := s.conn.WriteToUDPAddrPort(b, to); err != nil {
		s.t.Fatal(err)
	}
}

// next returns what comes next, or nil if nothing comes for so long.
func (s socket) next(patience time.Duration) []byte {
	s.t.Helper()
	buf := make([]byte, 2048)
	s.conn.SetReadDeadline(time.Now().Add(patience))
	n, err := s.conn.Read(buf)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return nil
	}
	if err != nil {
		s.t.Fatal(err)
	}
	return buf[:n]
}

func (s socket) want(b []byte) {
	s.t.Helper()
	if got := s.next(5 * time.Second); !bytes.Equal(got, b) {
		s.t.Fatalf("heard %q, want %q", got, b)
	}
}

// reaches sends b until all have heard it: a bridge that was made a moment ago
// may drop the first datagrams.
func (s socket) reaches(to netip.AddrPort, b []byte, all ...socket) {
	s.t.Helper()
	for _, other := range all {
		heard := false
		for range 50 {
			s.send(to, b)
			if heard = bytes.Equal(other.next(100*time.Millisecond), b); heard {
				break
			}
		}
		if !heard {
			s.t.Fatalf("%q was not heard within 5 s", b)
		}
	}
	for _, other := range all {
		for other.next(50*time.Millisecond) != nil {
		}
	}
}

func (s socket) wantNothing() {
	s.t.Helper()
	if got := s.next(100 * time.Millisecond); got != nil {
		s.t.Errorf("heard %q, want nothing", got)
	}
}

func TestLab_JoinsItsNodes(t *testing.T) {
	for name, hub := range map[string]bool{"bridge": false, "hub": true} {
		t.Run(name, func(t *testing.T) {
			l := newLab(t, Config{Nodes: 3, Hub: hub})
			s := sockets(t, l)
			s[1].reaches(netip.AddrPortFrom(l.Nodes[2].Addr, port), []byte("to one"), s[2])
			s[0].wantNothing()
		})
	}
}

func TestNode_SetFaults(t *testing.T) {
	l := newLab(t, Config{Nodes: 3})
	s := sockets(t, l)
	for _, tt := range []struct {
		name   string
		node   int
		faults Faults
		heard  bool // by node 1, of what node 0 sends
	}{
		{name: "nothing", node: 1, heard: true},
		{name: "receiver loses", node: 1, faults: Faults{LossIn: 1}},
		{name: "sender loses", node: 0, faults: Faults{LossOut: 1}},
		{name: "deaf to the sender", node: 1, faults: Faults{DeafTo: l.Nodes[:1]}},
		{name: "deaf to another", node: 1, faults: Faults{DeafTo: l.Nodes[2:]}, heard: true},
		{name: "sender deaf", node: 0, faults: Faults{LossIn: 1}, heard: true},
		{name: "cut", node: 0, faults: Faults{CutEvents: true}},
		{name: "database cut", node: 1, faults: Faults{CutDatabase: true}, heard: true},
		{name: "narrow", node: 0, faults: Faults{BitsPerSecond: 1e6}, heard: true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			before := l.Done().Dropped
			if err := l.Nodes[tt.node].SetFaults(tt.faults); err != nil {
				t.Fatal(err)
			}
			s[0].send(group, []byte(tt.name))
			if tt.heard {
				s[1].want([]byte(tt.name))
			} else {
				s[1].wantNothing()
				if l.Done().Dropped == before {
					t.Error("nothing is counted as dropped")
				}
			}
			if err := l.Nodes[tt.node].SetFaults(Faults{}); err != nil {
				t.Fatal(err)
			}
			s[0].send(group, []byte("healed"))
			s[1].want([]byte("healed"))
		})
	}
}

func TestLab_SetDisorder(t *testing.T) {
	l := newLab(t, Config{Nodes: 2, Hub: true, Seed: 1})
	s := sockets(t, l)
	set := func(d Disorder) {
		t.Helper()
		if err := l.SetDisorder(d); err != nil {
			t.Fatal(err)
		}
	}
	number := func(i int) []byte { return []byte{0, byte(i), 0, 0} }

	set(Disorder{Duplicate: 1})
	s[0].send(group, []byte("twice"))
	s[1].want([]byte("twice"))
	s[1].want([]byte("twice"))

	set(Disorder{Corrupt: 1})
	s[0].send(group, []byte("abcdefgh"))
	if got := s[1].next(5 * time.Second); len(got) != 8 || bytes.Equal(got, []byte("abcdefgh")) {
		t.Errorf("heard %q, want it with bytes exchanged", got)
	}

	set(Disorder{Delay: 20 * time.Millisecond})
	for i := range 50 {
		s[0].send(group, number(i))
	}
	for i := range 50 {
		s[1].want(number(i)) // delay alone keeps the order
	}

	set(Disorder{Reorder: 0.5})
	for i := range 50 {
		s[0].send(group, number(i))
	}
	overtaken, highest := 0, byte(0)
	for range 50 {
		got := s[1].next(5 * time.Second)
		if got == nil {
			t.Fatal("one is missing")
		}
		if got[1] < highest {
			overtaken++
		}
		highest = max(highest, got[1])
	}
	if overtaken == 0 {
		t.Error("none was overtaken")
	}
	if d := l.Done(); d.Duplicated == 0 || d.Corrupted == 0 || d.Reordered == 0 || d.Overflowed != 0 {
		t.Errorf("counted %+v", d)
	}
}

// What labs of dead processes left is removed, what those of living ones use is not.
func TestSweep_RemovesWhatTheDeadLeft(t *testing.T) {
	l := newLab(t, Config{Nodes: 1})
	disk, err := l.Disk("disk", 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	process := exec.Command("cat") // that would run for ever
	if _, err := process.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	if err := l.Nodes[0].Start(process); err != nil {
		t.Fatal(err)
	}
	if err := Sweep(); err != nil {
		t.Fatal(err)
	}
	if list, err := output("ip", "netns", "list"); err != nil || !strings.Contains(list, l.Nodes[0].Namespace) {
		t.Fatalf("the namespace of a living process was removed: %v", err)
	}
	me, err := self()
	if err != nil {
		t.Fatal(err)
	}
	if err := sweep(func(o owner) bool { return o == me }); err != nil {
		t.Fatal(err)
	}
	process.Wait() // it was killed
	if list, err := output("ip", "netns", "list"); err != nil || strings.Contains(list, l.Nodes[0].Namespace) {
		t.Errorf("a namespace is left: %v", err)
	}
	for _, path := range []string{disk, l.Folder} {
		if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s is left: %v", filepath.Base(path), err)
		}
	}
}

func TestOwnerOf_ReadsOnlyNamesOfLabs(t *testing.T) {
	me, err := self()
	if err != nil {
		t.Fatal(err)
	}
	if !me.alive() {
		t.Error("this process is taken for dead")
	}
	if o, ok := ownerOf(me.String() + "1-base"); !ok || o != me {
		t.Errorf("the own name is read as %+v, %v", o, ok)
	}
	if (owner{me.pid, me.start + 1}).alive() {
		t.Error("another process with the same ID is taken for the owner")
	}
	for _, name := range []string{"", "carillon", "carillon-1-2", "carillon-x-2-1", "carillon-1-x-1", "other-1-2-3"} {
		if o, ok := ownerOf(name); ok {
			t.Errorf("%q belongs to %+v", name, o)
		}
	}
}
