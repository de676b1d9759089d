//go:build linux && opponents

package mqtt

import (
	"testing"

	"github.com/carillon-go/carillon/bench/internal/opponent/opponenttest"
)

func TestSystems_DeliverEveryEventOnce(t *testing.T) {
	for _, s := range Systems() {
		t.Run(s.Name, func(t *testing.T) { opponenttest.Run(t, s) })
	}
}
