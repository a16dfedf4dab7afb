package relay

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/netip"
	"os/exec"
	"regexp"
	"strconv"
	"testing"
	"time"

	"github.com/pion/logging"
	"github.com/pion/turn/v3"

	"epcscf/internal/realpart"
	"epcscf/turncred"
)

// pionClient returns pion's client over the given transport.
func pionClient(t testing.TB, w *world, transport Transport, cred turncred.Credential) *turn.Client {
	t.Helper()
	var conn net.PacketConn
	var err error
	server := w.udp
	switch transport {
	case UDP:
		conn, err = net.ListenPacket("udp4", "127.0.0.1:0")
	default:
		var stream net.Conn
		if server = w.tcp; transport == TLS {
			server = w.tls
			stream, err = tls.Dial("tcp4", server.String(), &tls.Config{RootCAs: w.roots})
		} else {
			stream, err = net.Dial("tcp4", server.String())
		}
		conn = turn.NewSTUNConn(stream)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	logs := logging.NewDefaultLoggerFactory()
	logs.DefaultLogLevel = logging.LogLevelDisabled
	c, err := turn.NewClient(&turn.ClientConfig{
		STUNServerAddr: server.String(), TURNServerAddr: server.String(), Conn: conn, LoggerFactory: logs,
		Username: cred.Username, Password: string(cred.Password.Reveal()), Realm: string(cred.Realm),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	if err := c.Listen(); err != nil {
		t.Fatal(err)
	}
	return c
}

func TestPionClient(t *testing.T) {
	approaches(t, nil, func(t *testing.T, w *world, p turncred.Provisioner) {
		for _, transport := range []Transport{UDP, TCP, TLS} {
			t.Run(transport.String(), func(t *testing.T) {
				c := pionClient(t, w, transport, provision(t, p, "alice", 1, time.Minute))
				relay, err := c.Allocate()
				if err != nil {
					t.Fatal(err)
				}
				defer func() { _ = relay.Close() }()
				outside := newPeer(t)
				for i := range 20 { // pion begins with Send and binds a channel meanwhile
					echoThrough(t, relay, outside, fmt.Sprintf("message %d", i))
				}
			})
		}
	})
}

var uclientTotals = regexp.MustCompile(`tot_send_msgs=(\d+), tot_recv_msgs=(\d+)`)

// clientOf is a way to run coturn's client: its sessions talk to each other relay to relay.
type clientOf struct {
	name string
	at   netip.AddrPort
	args []string
	auth []string // how it signs
}

// coturn's client, in all its ways at once: with each approach, with a secret from which it
// makes its own credential (REST), and with tokens that it makes itself (-J), a new one, of
// another kid, with each Refresh.
func TestCoturnClient(t *testing.T) {
	uclient := realpart.Program(t, "turnutils_uclient", "coturn")
	// With a secret it makes credentials that are good for a day.
	w := startWorld(t, &world{maxTTL: 25 * time.Hour}, func(c *Config) {
		_, c.Tokens = tokenSide(t)
		c.MaxAllocationsPerSubject = 1000
		c.RelayIP6, c.AllowPeers = netip.IPv6Loopback(), append(c.AllowPeers, netip.PrefixFrom(netip.IPv6Loopback(), 128))
	})
	ways := []clientOf{
		{"udp", w.udp, []string{"-c"}, nil},
		{"udp, Send", w.udp, []string{"-c", "-s"}, nil},
		{"udp, with RTCP", w.udp, nil, nil}, // EVEN-PORT and RESERVATION-TOKEN
		{"tcp", w.tcp, []string{"-c", "-t"}, nil},
		{"tls", w.tls, []string{"-c", "-t", "-S"}, nil},
	}
	var all []clientOf
	for _, way := range ways {
		for approach, p := range map[string]turncred.Provisioner{"shared-key": w.sharedKey, "push": w.push} {
			cred := provision(t, p, turncred.IMPI(way.name), 1, time.Minute)
			way := way
			way.name, way.auth = approach+", "+way.name, []string{"-u", cred.Username, "-w", string(cred.Password.Reveal())}
			all = append(all, way)
		}
		way.name, way.auth = "token, "+way.name, []string{"-J", "-u", "any", "-w", "any"}
		all = append(all, way)
	}
	long := provision(t, w.sharedKey, "carol", 1, time.Minute)
	secret := []string{"-u", string(long.Tid), "-W", kmText}
	password := []string{"-u", long.Username, "-w", string(long.Password.Reveal())}
	all = append(all,
		clientOf{"REST secret, udp", w.udp, []string{"-c"}, secret}, clientOf{"REST secret, tcp", w.tcp, []string{"-c", "-t"}, secret},
		clientOf{"DONT-FRAGMENT", w.udp, []string{"-c", "-s", "-g"}, password}, clientOf{"many clients", w.udp, []string{"-c", "-m", "40"}, password},
		clientOf{"requests beyond need", w.udp, []string{"-c", "-G"}, password}, clientOf{"padded channels", w.udp, []string{"-c", "-D"}, password},
		clientOf{"many tokens", w.udp, []string{"-c", "-m", "20"}, []string{"-J", "-u", "any", "-w", "any"}},
	)
	if at, ok := w.serveIPv6(t); ok {
		all = append(all, clientOf{"IPv6", at, []string{"-c", "-x"}, password}, clientOf{"IPv6 to IPv4", at, []string{"-c", "-X"}, password},
			clientOf{"IPv6 over TCP", at, []string{"-c", "-x", "-t"}, password})
	}
	runClients(t, uclient, all)
}

// runClients runs them at once: each takes seconds to begin. What they send must come back.
func runClients(t *testing.T, uclient string, all []clientOf) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute) // it never gives up by itself
	defer cancel()
	outs, cmds := make([]bytes.Buffer, len(all)), make([]*exec.Cmd, len(all))
	for i, c := range all {
		args := append([]string{"-y", "-n", "10", "-m", "2", "-z", "5", "-l", "171", "-p", strconv.Itoa(int(c.at.Port()))}, c.auth...)
		cmds[i] = exec.CommandContext(ctx, uclient, append(append(args, c.args...), c.at.Addr().String())...)
		cmds[i].Stdout, cmds[i].Stderr = &outs[i], &outs[i]
		if err := cmds[i].Start(); err != nil {
			t.Fatal(err)
		}
	}
	for i, c := range all {
		err := cmds[i].Wait()
		totals := uclientTotals.FindAllSubmatch(outs[i].Bytes(), -1)
		if err != nil || len(totals) == 0 {
			t.Errorf("%s: %v\n%s", c.name, err, &outs[i])
			continue
		}
		if last := totals[len(totals)-1]; !bytes.Equal(last[1], last[2]) || string(last[1]) == "0" {
			t.Errorf("%s: sent %s, received %s\n%s", c.name, last[1], last[2], &outs[i])
		}
	}
}

// serveIPv6 has w listen on ::1, UDP and TCP on one port, where this host has IPv6.
func (w *world) serveIPv6(t *testing.T) (at netip.AddrPort, ok bool) {
	t.Helper()
	pc, err := net.ListenPacket("udp6", "[::1]:0")
	if err != nil {
		t.Logf("no IPv6 here: %v", err)
		return at, false
	}
	at = addrPortOf(pc.LocalAddr())
	ln, err := net.Listen("tcp6", at.String())
	if err != nil {
		t.Fatal(err)
	}
	for _, serve := range []func() error{func() error { return w.ServeUDP(pc) }, func() error { return w.ServeTCP(ln) }} {
		go func() { // ends with w
			if err := serve(); err != nil {
				t.Errorf("serve: %v", err)
			}
		}()
	}
	eventually(t, "it is served", func() bool { return w.policy.barred(at) })
	return at, true
}
