package main

import (
	"context"
	_ "embed" // the configuration of Kamailio
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"epcscf/bench/internal/subject"
)

//go:embed kamailio-edge.cfg
var kamailioConfig string

//go:embed kamailio-tls.cfg
var kamailioTLSConfig string

// errNoKamailio wraps what is missing.
var errNoKamailio = errors.New("not installed (Debian: kamailio kamailio-websocket-modules kamailio-tls-modules kamailio-outbound-modules)")

// kamailioEdge finds Kamailio and the modules that the configuration loads.
func (b *bench) kamailioEdge() (contender, error) {
	bin, err := exec.LookPath("kamailio")
	if err != nil {
		return contender{}, errNoKamailio
	}
	found, _ := filepath.Glob("/usr/lib/*/kamailio/modules/websocket.so")
	if len(found) == 0 {
		return contender{}, fmt.Errorf("websocket.so: %w", errNoKamailio)
	}
	modules := filepath.Dir(found[0])
	for _, m := range []string{"tls.so", "outbound.so"} {
		if _, err := os.Stat(filepath.Join(modules, m)); err != nil {
			return contender{}, fmt.Errorf("%s: %w", m, errNoKamailio)
		}
	}
	return contender{
		name: "kamailio " + kamailioVersion(bin), credential: "TURN-Credential",
		start: func(ctx context.Context) (*edge, error) { return b.startKamailio(ctx, bin, modules) },
	}, nil
}

// kamailioVersion reads the third word of "version: kamailio 5.6.3 (x86_64/linux)".
func kamailioVersion(bin string) string {
	out, _ := exec.Command(bin, "-v").Output()
	if f := strings.Fields(string(out)); len(f) > 2 {
		return f[2]
	}
	return "?"
}

func (b *bench) startKamailio(ctx context.Context, bin, modules string) (*edge, error) {
	dir, err := os.MkdirTemp(b.dir, "kamailio-")
	if err != nil {
		return nil, err
	}
	tcp, udp, err := freePorts()
	if err != nil {
		return nil, err
	}
	fill := strings.NewReplacer("@WSS@", tcp, "@UDP@", udp, "@CORE@", b.core.addr(), "@MODULES@", modules,
		"@TLS@", filepath.Join(dir, "tls.cfg"), "@CERT@", b.certFile, "@KEY@", b.keyFile)
	cfg := filepath.Join(dir, "kamailio.cfg")
	for file, text := range map[string]string{cfg: kamailioConfig, filepath.Join(dir, "tls.cfg"): kamailioTLSConfig} {
		if err := os.WriteFile(file, []byte(fill.Replace(text)), 0o600); err != nil {
			return nil, err
		}
	}
	p, err := subject.StartForeign(bin, "-f", cfg, "-DD", "-E", "-m", "4096", "-M", "16", "-Y", dir, "-P", filepath.Join(dir, "pid"))
	if err != nil {
		return nil, err
	}
	e := &edge{addr: tcp, pid: p.PID, stop: p.Stop}
	if err := waitUntilListening(ctx, tcp, p.Ended); err != nil {
		e.stop()
		return nil, fmt.Errorf("kamailio: %w; it said: %s", err, p.Said())
	}
	return e, nil
}

// freePorts finds a free port for TCP and one for UDP on loopback.
func freePorts() (tcp, udp string, err error) {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		return "", "", err
	}
	pc, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		return "", "", errors.Join(err, l.Close())
	}
	return l.Addr().String(), pc.LocalAddr().String(), errors.Join(l.Close(), pc.Close())
}

// waitUntilListening waits until addr takes connections. That it is the edge that we
// started, and not another, the certificate will show.
func waitUntilListening(ctx context.Context, addr string, ended <-chan struct{}) error {
	ctx, cancel := context.WithTimeoutCause(ctx, 20*time.Second, errors.New("does not listen after 20 s"))
	defer cancel()
	poll := time.NewTicker(50 * time.Millisecond)
	defer poll.Stop()
	for {
		if conn, err := net.DialTimeout("tcp4", addr, time.Second); err == nil {
			return conn.Close()
		}
		select {
		case <-poll.C:
		case <-ended:
			return errors.New("ended at once")
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}
