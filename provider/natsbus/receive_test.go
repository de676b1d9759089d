package natsbus

import (
	"testing"

	"github.com/nats-io/nats.go"

	"github.com/carillon-go/carillon/provider"
)

// nats.go may hold a message that it took out of a subscription's queue before that ended.
func TestInbox_DeliversNothingAfterClose(t *testing.T) {
	var delivered []string
	in := &inbox{deliver: func(b provider.Batch) { delivered = append(delivered, string(b.Frames[0])) }}
	in.take(&nats.Msg{Data: []byte("frame")})
	in.take(&nats.Msg{}) // a question for rights
	in.close()
	in.take(&nats.Msg{Data: []byte("late")})
	if len(delivered) != 1 || delivered[0] != "frame" {
		t.Errorf("delivered %q; want the frame alone", delivered)
	}
}
