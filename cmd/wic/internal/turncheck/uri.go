package turncheck

import (
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
)

// uri is a TURN URI (RFC 7065).
type uri struct {
	secure    bool
	transport string // "udp" or "tcp"
	host      string
	addr      string // host:port
}

// parseURI reads turn:host[:port][?transport=udp|tcp] and turns: alike. Over TLS the
// transport is TCP; turns with udp is DTLS, which this check does not speak.
func parseURI(s string) (uri, error) {
	p, err := url.Parse(s)
	if err != nil || p.Opaque == "" || p.Scheme != "turn" && p.Scheme != "turns" {
		return uri{}, fmt.Errorf("no TURN URI: want turn:HOST:PORT?transport=udp, turn:HOST:PORT?transport=tcp or turns:HOST:PORT?transport=tcp (RFC 7065)")
	}
	u := uri{secure: p.Scheme == "turns", transport: p.Query().Get("transport")}
	port := "3478" // RFC 8656 §13 and RFC 7065 §3.1
	if u.secure {
		port = "5349"
	}
	if u.transport == "" {
		u.transport = "udp"
		if u.secure {
			u.transport = "tcp"
		}
	}
	if u.transport != "udp" && u.transport != "tcp" || u.secure && u.transport == "udp" {
		return uri{}, fmt.Errorf("transport %q is not checked by this client: it speaks UDP, TCP, and TLS over TCP", u.transport)
	}
	hostPort, err := url.Parse("//" + p.Opaque)
	if err != nil || !isHost(hostPort.Hostname()) {
		return uri{}, fmt.Errorf("no host in the TURN URI")
	}
	if hostPort.Port() != "" {
		port = hostPort.Port()
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
		return uri{}, fmt.Errorf("port %q in the TURN URI is none", port)
	}
	u.host, u.addr = hostPort.Hostname(), net.JoinHostPort(hostPort.Hostname(), port)
	return u, nil
}

// isHost reports whether s is an IP address or made of what names are made of.
func isHost(s string) bool {
	if _, err := netip.ParseAddr(s); err == nil {
		return true
	}
	return s != "" && strings.Trim(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-_") == ""
}
