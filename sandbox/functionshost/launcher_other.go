//go:build !linux

package functionshost

import "syscall"

// diesWithParent: other systems have no such thing.
func diesWithParent() *syscall.SysProcAttr { return nil }
