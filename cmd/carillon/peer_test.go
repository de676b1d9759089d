//go:build unix

package main

func runPeer() {}
