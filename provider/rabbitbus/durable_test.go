package rabbitbus

import (
	"testing"

	"github.com/carillon-go/carillon/provider/providertest"
)

// Frames that are written to disk survive the server, which the suite proves by killing it.
func TestPersistent_KeepsTheContract(t *testing.T) {
	providertest.Run(t, harness(Config{QueueBytes: minQueueBytes, MaxFrameBytes: 16 << 10, Persistent: true}))
}
