//go:build !linux

package rabbitbus

import "syscall"

// dyingWithUs is for Linux; elsewhere a process outlives a test that crashed.
func dyingWithUs() *syscall.SysProcAttr { return &syscall.SysProcAttr{} }
