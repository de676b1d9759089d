//go:build !race

package carillon_test

const raceEnabled = false
