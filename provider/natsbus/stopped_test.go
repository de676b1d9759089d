//go:build unix

package natsbus

import (
	"errors"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/carillon-go/carillon/provider"
	"github.com/carillon-go/carillon/provider/providertest"
)

// A server that stands still takes nothing, and neither Send nor Close may wait for it for ever.
func TestClose_EndsASendThatWaitsForTheServer(t *testing.T) {
	s := startServer(t, "")
	e := providertest.Start(t, newProvider(t, Config{URLs: []string{s.url()}}))
	s.cmd.Process.Signal(syscall.SIGSTOP)
	defer s.cmd.Process.Signal(syscall.SIGCONT)
	result := make(chan error, 1)
	var sent atomic.Int64
	go func() {
		frames := [][]byte{make([]byte, 32<<10)}
		for {
			err := e.Provider.Send(t.Context(), frames)
			if errors.Is(err, provider.ErrClosed) {
				result <- nil
				return
			}
			sent.Add(1)
		}
	}()
	eventually(t, "Send waits", func() bool { // for what the system holds is full
		before := sent.Load()
		pause := time.NewTimer(200 * time.Millisecond)
		<-pause.C
		return sent.Load() == before
	})
	if err := e.Close(); err != nil {
		t.Error(err)
	}
	select {
	case <-result:
	case <-time.After(10 * time.Second):
		t.Error("Send still waits after Close")
	}
}
