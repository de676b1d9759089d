//go:build linux && opponents

package kafka

import (
	"os"
	"testing"

	"github.com/carillon-go/carillon/bench/internal/opponent/kafka/kafkaserver"
	"github.com/carillon-go/carillon/bench/internal/opponent/opponenttest"
)

func TestMain(m *testing.M) {
	kafkaserver.RunIfAsked()
	os.Exit(m.Run())
}

func TestSystems_DeliverEveryEventOnce(t *testing.T) {
	for _, s := range Systems() {
		t.Run(s.Name, func(t *testing.T) { opponenttest.Run(t, s) })
	}
}
