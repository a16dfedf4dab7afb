package relay

import (
	"bytes"
	"crypto/tls"
	"fmt"
	"net"
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

// coturnRun is a run of coturn's client, which takes some seconds to begin.
type coturnRun struct {
	name string
	cmd  *exec.Cmd
	out  bytes.Buffer
}

// coturn's client, whose sessions talk to each other relay to relay, in all its ways at
// once: with each approach, and with tokens that it makes itself (-J), a new one, of another
// kid, with each Refresh.
func TestCoturnClient(t *testing.T) {
	uclient := realpart.Program(t, "turnutils_uclient", "coturn")
	w := newTokenWorld(t, nil)
	var runs []*coturnRun
	start := func(name string, port uint16, args ...string) {
		args = append(args, "-y", "-n", "10", "-m", "2", "-z", "5", "-l", "171", "-p", strconv.Itoa(int(port)), "127.0.0.1")
		r := &coturnRun{name: name, cmd: exec.CommandContext(t.Context(), uclient, args...)}
		r.cmd.Stdout, r.cmd.Stderr = &r.out, &r.out
		if err := r.cmd.Start(); err != nil {
			t.Fatal(err)
		}
		runs = append(runs, r)
	}
	for _, tt := range []struct {
		name string
		port uint16
		args []string
	}{
		{"udp", w.udp.Port(), []string{"-c"}},
		{"udp, Send", w.udp.Port(), []string{"-c", "-s"}},
		{"udp, with RTCP", w.udp.Port(), nil}, // EVEN-PORT and RESERVATION-TOKEN
		{"tcp", w.tcp.Port(), []string{"-c", "-t"}},
		{"tls", w.tls.Port(), []string{"-c", "-t", "-S"}},
	} {
		for approach, p := range map[string]turncred.Provisioner{"shared-key": w.sharedKey, "push": w.push} {
			cred := provision(t, p, turncred.IMPI(tt.name), 1, time.Minute)
			start(approach+", "+tt.name, tt.port, append(tt.args[:len(tt.args):len(tt.args)], "-u", cred.Username, "-w", string(cred.Password.Reveal()))...)
		}
		start("token, "+tt.name, tt.port, append(tt.args[:len(tt.args):len(tt.args)], "-J", "-u", "any", "-w", "any")...)
	}
	for _, r := range runs {
		err := r.cmd.Wait()
		all := uclientTotals.FindAllSubmatch(r.out.Bytes(), -1)
		if err != nil || len(all) == 0 {
			t.Errorf("%s: %v\n%s", r.name, err, &r.out)
			continue
		}
		if last := all[len(all)-1]; !bytes.Equal(last[1], last[2]) || string(last[1]) == "0" {
			t.Errorf("%s: sent %s, received %s\n%s", r.name, last[1], last[2], &r.out)
		}
	}
}
