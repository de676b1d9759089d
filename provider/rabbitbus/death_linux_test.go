package rabbitbus

import "syscall"

// dyingWithUs makes a process end when the thread that began it does.
func dyingWithUs() *syscall.SysProcAttr { return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} }
