//go:build darwin || dragonfly || freebsd || linux || netbsd || openbsd

package main

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// demoLock is the file in the demonstration's folder that its processes keep
// locked together. The kernel gives the lock back when they end, however they do.
const demoLock = "lock"

// holdFolder marks dir as in use until release is called or the process ends.
func holdFolder(dir string) (release func(), err error) {
	path := filepath.Join(dir, demoLock)
	f, err := os.Open(path)
	if os.IsNotExist(err) {
		// It gets its name when it is locked: a file that has the name and is not locked
		// is one that nobody holds any more.
		if f, err = os.CreateTemp(dir, demoLock+"-"); err == nil {
			if err = flock(f, syscall.LOCK_SH); err == nil {
				err = os.Rename(f.Name(), path)
			}
		}
	} else if err == nil {
		err = flock(f, syscall.LOCK_SH)
	}
	if err != nil {
		if f != nil {
			f.Close()
		}
		return nil, err
	}
	return func() { f.Close() }, nil
}

// sweepFolders removes the folders in dir that demonstrations left behind whose
// processes were all killed. Folders that do not tell are left alone, and so are those that
// this user may not remove.
func sweepFolders(dir string) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return
	}
	for _, e := range entries {
		if !e.IsDir() || !strings.HasPrefix(e.Name(), demoFolder) {
			continue
		}
		folder := filepath.Join(dir, e.Name())
		f, err := os.OpenFile(filepath.Join(folder, demoLock), os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
		if err != nil {
			continue
		}
		if flock(f, syscall.LOCK_EX|syscall.LOCK_NB) == nil {
			os.RemoveAll(folder) // the next demonstration tries again
		}
		f.Close()
	}
}

func flock(f *os.File, how int) error {
	for {
		if err := syscall.Flock(int(f.Fd()), how); err != syscall.EINTR {
			return err
		}
	}
}
