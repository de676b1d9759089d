//go:build unix

package main

import (
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/carillon-go/carillon/provider"
	"github.com/carillon-go/carillon/provider/providertest"
)

func TestSocketBus_KeepsTheContract(t *testing.T) {
	providertest.Run(t, providertest.HarnessFunc(func(tb testing.TB, n int) *providertest.Network {
		folder := shortFolder(tb)
		all := make([]*socketBus, n)
		network := &providertest.Network{
			Garbage: func(i int, b []byte) error { return write(all[i], b) },
			Broken: func() provider.Provider {
				file := filepath.Join(folder, "file")
				if err := os.WriteFile(file, nil, 0o600); err != nil {
					tb.Fatal(err)
				}
				return newSocketBus(file)
			},
		}
		for i := range all {
			all[i] = newSocketBus(folder)
			network.Providers = append(network.Providers, all[i])
		}
		return network
	}))
}

// shortFolder is a temporary folder whose path leaves room for the name of a socket.
func shortFolder(tb testing.TB) string {
	tb.Helper()
	folder, err := os.MkdirTemp("", "unix")
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { os.RemoveAll(folder) })
	return folder
}

func write(to *socketBus, b []byte) error {
	conn, err := net.DialUnix("unixgram", nil, to.address(to.own))
	if err != nil {
		return err
	}
	defer conn.Close()
	_, err = conn.Write(b)
	return err
}

func TestSocketBus_MakesASocketAgainThatWasRemoved(t *testing.T) {
	folder := shortFolder(t)
	one, two := newSocketBus(folder), newSocketBus(folder)
	from, to := providertest.Start(t, one), providertest.Start(t, two)
	providertest.Introduce(from, to)
	if err := os.Remove(two.address(two.own).Name); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(30 * time.Second); to.Reconnects() == 0; {
		if time.Now().After(deadline) {
			t.Fatal("its socket was removed, and Reconnected was not called")
		}
		to.Heard(nil, 10*time.Millisecond)
	}
	frame := []byte("after Reconnected")
	if err := one.Send(t.Context(), [][]byte{frame}); err != nil {
		t.Fatal(err)
	}
	if !to.Heard(frame, 30*time.Second) {
		t.Error("what was sent after Reconnected did not arrive")
	}
}

func TestSocketBus_RemovesTheSocketOfAProcessThatWasKilled(t *testing.T) {
	folder := shortFolder(t)
	bus := newSocketBus(folder)
	providertest.Start(t, bus)
	dead := newSocketBus(folder)
	conn, err := net.ListenUnixgram("unixgram", dead.address(dead.own))
	if err != nil {
		t.Fatal(err)
	}
	conn.Close() // as the kernel does; the file stays
	if err := bus.Send(t.Context(), [][]byte{[]byte("frame")}); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Lstat(dead.address(dead.own).Name); !os.IsNotExist(err) {
		t.Errorf("the socket of a process that is gone is still there: %v", err)
	}
}
