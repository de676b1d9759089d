//go:build !zmq || !cgo

package zmq

import (
	"context"
	"fmt"
	"io"

	"github.com/carillon-go/carillon/bench/internal/system"
)

// Systems returns the one, in a program that was built without it.
func Systems() []system.System {
	missing := fmt.Errorf("ZeroMQ is %w; install the Debian packages libzmq3-dev and pkg-config and build with -tags zmq", system.ErrMissing)
	return []system.System{{
		Name:  name,
		Title: title,
		Note:  note,
		Publish: func(context.Context, system.Spec, string) (system.Publisher, error) {
			return nil, missing
		},
		Subscribe: func(context.Context, system.Spec, string, func([]byte)) (io.Closer, error) {
			return nil, missing
		},
	}}
}
