//go:build !linux

package udpbus

// Only Linux takes and hands over several datagrams in one piece.

func sendsSegments(uintptr) bool { return false }

func receiveSegments(uintptr) {}

func segmentSize([]byte, int) []byte { return nil }

func segmentsRefused(error) bool { return false }

var controlBytes = 0

func segmentOf([]byte) int { return 0 }
