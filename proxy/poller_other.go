//go:build !linux

package proxy

import (
	"errors"
	"syscall"
)

// poller is for Linux only. Elsewhere each flow keeps a goroutine that waits.
type poller struct{}

func newPoller(func(uint64)) (*poller, error) { return nil, errors.ErrUnsupported }

func (*poller) arm(syscall.Conn, uint64, bool) error { return errors.ErrUnsupported }

func (*poller) run() {}

func (*poller) close() {}
