//go:build linux

package main

import (
	"context"
	"encoding/binary"
	"io"

	"github.com/carillon-go/carillon/bench/internal/system"
)

// faulty returns systems over TCP that do what a benchmark must notice.
func faulty() []system.System {
	lossy, stutter := *find("limit-tcp"), *find("limit-tcp")
	lossy.Name, stutter.Name = "lossy", "stutter"
	lossy.Subscribe = spoiled(lossy.Subscribe, func(n uint64, deliver func()) {
		if n != 300 {
			deliver()
		}
	})
	stutter.Subscribe = spoiled(stutter.Subscribe, func(n uint64, deliver func()) {
		deliver()
		if n == 300 {
			deliver()
		}
	})
	return []system.System{lossy, stutter}
}

// findAny is find for these too.
func findAny(name string) *system.System {
	for _, s := range faulty() {
		if s.Name == name {
			return &s
		}
	}
	return find(name)
}

type subscribe = func(ctx context.Context, s system.Spec, address string, deliver func([]byte)) (io.Closer, error)

func spoiled(by subscribe, how func(n uint64, deliver func())) subscribe {
	return func(ctx context.Context, s system.Spec, address string, deliver func([]byte)) (io.Closer, error) {
		return by(ctx, s, address, func(event []byte) {
			how(binary.LittleEndian.Uint64(event), func() { deliver(event) })
		})
	}
}
