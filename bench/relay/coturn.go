package main

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os/exec"
	"strconv"
	"strings"
	"time"

	"epcscf/bench/internal/subject"
)

// The ports of relayed addresses. The kernel's own choice for other sockets begins above.
const minPort, maxPort = 12000, 32000

// coturn finds Debian's turnserver.
func coturn() (contender, error) {
	bin, err := exec.LookPath("turnserver")
	if err != nil {
		return contender{}, errors.New("not installed (Debian: coturn)")
	}
	version, _ := exec.Command(bin, "--version").Output() //nolint:gosec // G204: found by LookPath
	name := "coturn"
	if f := strings.Fields(string(version)); len(f) > 0 {
		name += " " + f[len(f)-1]
	}
	return contender{name: name, credential: restCredential, start: func() (*server, error) { return startCoturn(bin) }}, nil
}

// startCoturn starts it with its defaults: one thread a core. It binds with SO_REUSEPORT, so
// two servers could share a port in silence; that it was free a moment ago must do.
func startCoturn(bin string) (*server, error) {
	pc, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	at := pc.LocalAddr().(*net.UDPAddr).AddrPort()
	if err := pc.Close(); err != nil {
		return nil, err
	}
	p, err := subject.StartForeign(bin, "-n", "--listening-ip=127.0.0.1", "--listening-port="+strconv.Itoa(int(at.Port())),
		"--relay-ip=127.0.0.1", "--use-auth-secret", "--static-auth-secret="+restSecret, "--realm="+realm, "--allow-loopback-peers",
		"--no-cli", "--no-tls", "--no-dtls", "--no-tcp", "--log-file=stdout", "--pidfile=/dev/null",
		fmt.Sprintf("--min-port=%d", minPort), fmt.Sprintf("--max-port=%d", maxPort))
	if err != nil {
		return nil, err
	}
	s := &server{addr: at, pid: p.PID, stop: p.Stop}
	if err := waitUntilAnswering(at, p.Ended); err != nil {
		s.stop()
		return nil, fmt.Errorf("coturn: %w; it said: %s", err, p.Said())
	}
	return s, nil
}

// waitUntilAnswering waits until at answers Binding.
func waitUntilAnswering(at netip.AddrPort, ended <-chan struct{}) error {
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); {
		select {
		case <-ended:
			return errors.New("ended at once")
		default:
		}
		if err := ping(at); err == nil {
			return nil
		}
	}
	return errors.New("does not answer")
}
