//go:build race

package carillon_test

const raceEnabled = true
