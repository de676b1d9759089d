//go:build !zmq || !cgo

package zmq

import (
	"errors"
	"testing"

	"github.com/carillon-go/carillon/bench/internal/system"
)

func TestSystems_SayWhatToInstall(t *testing.T) {
	for _, s := range Systems() {
		if _, err := s.Publish(t.Context(), system.Spec{}, ""); !errors.Is(err, system.ErrMissing) {
			t.Errorf("Publish: %v", err)
		}
		if _, err := s.Subscribe(t.Context(), system.Spec{}, "", nil); !errors.Is(err, system.ErrMissing) {
			t.Errorf("Subscribe: %v", err)
		}
	}
}
