package mqttbus

import (
	"os/exec"
	"syscall"
)

// dieWithUs makes the process end when that of the test does, however that ends.
func dieWithUs(cmd *exec.Cmd) { cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} }
