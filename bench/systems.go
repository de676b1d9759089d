//go:build linux

package main

import (
	"slices"

	"github.com/carillon-go/carillon/bench/internal/limit"
	"github.com/carillon-go/carillon/bench/internal/opponent"
	"github.com/carillon-go/carillon/bench/internal/own"
	"github.com/carillon-go/carillon/bench/internal/system"
)

// systems returns everything that can be measured: ourselves, what people would pick instead, and the limits.
func systems() []system.System {
	return slices.Concat(
		own.Systems(),
		guestSystems(),
		opponent.Systems(),
		limit.Systems(),
	)
}

// find returns the system of that name, or nil.
func find(name string) *system.System {
	for _, s := range systems() {
		if s.Name == name {
			return &s
		}
	}
	return nil
}
