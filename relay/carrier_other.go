//go:build !linux

package relay

import (
	"net"
	"net/netip"
)

// Without epoll there are no carriers: each socket has its goroutine.

type carrier struct{ server netip.AddrPort }

type crew struct{}

func newCarrier(*Server, net.PacketConn) (*carrier, error) { return nil, nil }

func (*carrier) adopt(*allocation, *leg)                             {}
func (*carrier) post(*allocation, *leg, []byte, netip.AddrPort) bool { return false }
func (*carrier) flushPeers()                                         {}
func (*carrier) run() error                                          { return nil }
func (*carrier) bequeath(*carrier)                                   {}
func (*carrier) settle()                                             {}
func (*carrier) free()                                               {}
func (*carrier) Close() error                                        { return nil }

type lane struct{}

func (*lane) start() error { return nil }
func (*lane) close()       {}
