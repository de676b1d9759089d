package udpbus

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/carillon-go/carillon/provider"
	"github.com/carillon-go/carillon/provider/providertest"
)

// insideVariable tells this program that it runs in a network of its own.
const insideVariable = "UDPBUS_OWN_NETWORK"

// ownNetwork runs the test that calls it once more, in a process whose network holds
// nothing but a loopback interface that is down, and there returns true. So a test can switch
// a real interface without disturbing anybody.
func ownNetwork(t *testing.T) (inside bool) {
	t.Helper()
	if os.Getenv(insideVariable) == t.Name() {
		return true
	}
	if _, err := exec.LookPath("ip"); err != nil {
		t.Skipf("%v; install iproute2", err)
	}
	program, err := filepath.Abs(os.Args[0])
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), program, "-test.run=^"+t.Name()+"$", "-test.v", "-test.timeout=2m")
	cmd.Env = append(os.Environ(), insideVariable+"="+t.Name())
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
	if os.Getuid() != 0 {
		cmd.SysProcAttr.Cloneflags |= syscall.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{HostID: os.Getuid(), Size: 1}}
		cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{HostID: os.Getgid(), Size: 1}}
	}
	out, err := cmd.CombinedOutput()
	if errors.Is(err, os.ErrPermission) || errors.Is(err, syscall.EPERM) || errors.Is(err, syscall.ENOSYS) {
		t.Skipf("no network of its own for this test: %v; run it as root", err)
	}
	if err != nil {
		t.Errorf("in a network of its own: %v\n%s", err, out)
	}
	return false
}

// ip runs the command of that name.
func ip(t *testing.T, args ...string) {
	t.Helper()
	if out, err := exec.CommandContext(t.Context(), "ip", args...).CombinedOutput(); err != nil {
		t.Fatalf("ip %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

// cable makes the interface cable0 with the other end of it, both of them up.
func cable(t *testing.T) {
	t.Helper()
	ip(t, "link", "set", "lo", "up")
	ip(t, "link", "add", "cable0", "type", "veth", "peer", "name", "cable1")
	t.Cleanup(func() { exec.Command("ip", "link", "del", "cable0").Run() })
	ip(t, "addr", "add", "192.0.2.1/24", "dev", "cable0")
	ip(t, "addr", "add", "2001:db8::1/64", "dev", "cable0", "nodad")
	ip(t, "link", "set", "cable0", "up")
	ip(t, "link", "set", "cable1", "up")
	if !eventually(func() bool {
		i, err := net.InterfaceByName("cable0")
		return err == nil && i.Flags&net.FlagRunning != 0
	}) {
		t.Fatal("cable0 does not come up")
	}
}

func TestProvider_SurvivesItsInterface(t *testing.T) {
	if !ownNetwork(t) {
		return
	}
	for _, tt := range []struct {
		name       string
		away, back [][]string // commands for ip
	}{
		{"switched off", [][]string{{"link", "set", "cable0", "down"}}, [][]string{{"link", "set", "cable0", "up"}}},
		{"cable pulled", [][]string{{"link", "set", "cable1", "down"}}, [][]string{{"link", "set", "cable1", "up"}}},
		{
			"without address", [][]string{{"addr", "del", "192.0.2.1/24", "dev", "cable0"}},
			[][]string{{"addr", "add", "192.0.2.1/24", "dev", "cable0"}},
		},
		{"unplugged", [][]string{{"link", "del", "cable0"}}, [][]string{
			{"link", "add", "cable0", "type", "veth", "peer", "name", "cable1"}, {"addr", "add", "192.0.2.9/24", "dev", "cable0"},
			{"link", "set", "cable1", "up"}, {"link", "set", "cable0", "up"},
		}},
	} {
		for _, mode := range []Mode{Multicast, Broadcast} {
			t.Run(tt.name+"/"+string(mode), func(t *testing.T) {
				cable(t)
				cfg := Config{Mode: mode, Interface: "cable0", Port: freePort(t)}
				pa, pb := newTest(t, cfg), newTest(t, cfg)
				a, b := providertest.Start(t, pa), providertest.Start(t, pb)
				send(t, a, []byte("before"), b)
				for _, command := range tt.away {
					ip(t, command...)
				}
				if !eventually(func() bool { return pa.link.Load() == nil && pb.link.Load() == nil }) {
					t.Fatal("the providers do not notice")
				}
				if err := pa.Send(t.Context(), frames(1)); err == nil || errors.Is(err, provider.ErrClosed) {
					t.Errorf("Send meanwhile: %v", err)
				}
				if a.Reconnects()+b.Reconnects() != 0 {
					t.Error("Reconnected was called meanwhile")
				}
				for _, command := range tt.back {
					ip(t, command...)
				}
				if !eventually(func() bool { return a.Reconnects() > 0 && b.Reconnects() > 0 }) {
					t.Fatal("Reconnected was not called")
				}
				send(t, a, []byte("from a"), b)
				send(t, b, []byte("from b"), a)
			})
		}
	}
}

// Fragments would be lost as a whole with each of them, and some networks drop them all.
func TestSend_NeverFragments(t *testing.T) {
	if !ownNetwork(t) {
		return
	}
	ip(t, "link", "set", "lo", "up", "mtu", "1500")
	p := newTest(t, Config{Interface: "lo", Port: freePort(t), MaxFrameBytes: 1473})
	if err := p.Start(t.Context(), env(t)); err == nil {
		t.Error("frames that do not pass the interface: Start returned nil")
	}
	p.Close()
	for _, tt := range []struct {
		to   netip.Addr
		from string // Interface
	}{
		{localhost(), "127.0.0.1"}, {localhost(), ""}, {netip.IPv6Loopback(), ""}, {netip.IPv6Loopback(), "::1"},
	} {
		port := uint16(freePort(t))
		receiver := providertest.Start(t, newTest(t, Config{Mode: Unicast, Peers: []string{"127.0.0.1:9"}, Port: int(port)}))
		p := newTest(t, Config{Mode: Unicast, Peers: []string{netip.AddrPortFrom(tt.to, port).String()}, Port: freePort(t), MaxFrameBytes: 9000, Interface: tt.from})
		system := p.interfaces
		p.interfaces = func() ([]nic, error) { // its MTU is smaller than we know
			nics, err := system()
			for i := range nics {
				nics[i].mtu = 65536
			}
			return nics, err
		}
		sender := providertest.Start(t, p)
		room := 1500 - headerBytes(tt.to.Is6())
		long, longest := make([]byte, room+1), make([]byte, room)
		if err := p.Send(t.Context(), [][]byte{long, longest}); err != nil {
			t.Errorf("%q to %v: Send of a frame longer than the MTU: %v; it should be lost alone", tt.from, tt.to, err)
		}
		send(t, sender, longest, receiver)
		if receiver.Heard(long, 0) {
			t.Errorf("%q to %v: a datagram of %d bytes passed an interface with an MTU of 1500", tt.from, tt.to, len(long))
		}
		if p.lost.count != 1 {
			t.Errorf("%q to %v: %d datagrams are counted as lost, want 1", tt.from, tt.to, p.lost.count)
		}
	}
}

// The loopback interface carries no IPv6 multicast, so this is not among the networks
// of the other tests.
func TestMulticast_CarriesIPv6(t *testing.T) {
	if !ownNetwork(t) {
		return
	}
	cable(t)
	group := netip.MustParseAddr("ff15::4352")
	p := newTest(t, Config{Group: group, Interface: "lo", Port: freePort(t)})
	if err := p.Start(t.Context(), env(t)); !errors.Is(err, syscall.ENETUNREACH) {
		t.Errorf("on an interface without a route to the group: Start says %v", err)
	}
	p.Close()
	t.Run("suite", func(t *testing.T) { providertest.Run(t, harness(Config{Group: group, Interface: "cable0"})) })
	t.Run("other group", func(t *testing.T) { hearsItsOwnGroupOnly(t, "2001:db8::1", "ff15::1", "ff15::2") })
	t.Run("link-local", func(t *testing.T) {
		cfg := Config{Group: netip.MustParseAddr("ff12::4352"), Interface: linkLocal(t), Port: freePort(t)}
		a, b := providertest.Start(t, newTest(t, cfg)), providertest.Start(t, newTest(t, cfg))
		send(t, a, []byte("hello"), b)
		if a.Heard([]byte("hello"), 20*time.Millisecond) {
			t.Error("the instance hears itself")
		}
	})
}

// Other interfaces have the same addresses, one of them older and one younger, so that one is the
// system's first choice.
func TestMulticast_StaysOnItsInterface(t *testing.T) {
	if !ownNetwork(t) {
		return
	}
	decoy := func(name string) {
		ip(t, "link", "add", name, "type", "veth", "peer", "name", "end-of-"+name)
		ip(t, "addr", "add", "192.0.2.1/24", "dev", name)
		ip(t, "addr", "add", "2001:db8::1/64", "dev", name, "nodad")
		ip(t, "link", "set", name, "up")
		ip(t, "link", "set", "end-of-"+name, "up")
	}
	decoy("older")
	cable(t)
	decoy("younger")
	for _, group := range []string{"239.255.0.1", "ff15::4352"} {
		cfg := Config{Group: netip.MustParseAddr(group), Interface: "cable0", Port: freePort(t)}
		a, b := providertest.Start(t, newTest(t, cfg)), providertest.Start(t, newTest(t, cfg))
		send(t, a, []byte(group), b)
		send(t, b, []byte("back"), a)
	}
}

// linkLocal returns the link-local address of cable0, when the kernel is done with it.
func linkLocal(t *testing.T) string {
	t.Helper()
	var found string
	if !eventually(func() bool {
		out, err := exec.CommandContext(t.Context(), "ip", "-6", "-o", "addr", "show", "dev", "cable0", "scope", "link", "-tentative").Output()
		if fields := strings.Fields(string(out)); err == nil && len(fields) > 3 {
			found, _, _ = strings.Cut(fields[3], "/")
		}
		return found != ""
	}) {
		t.Fatal("cable0 has no link-local address")
	}
	return found
}
