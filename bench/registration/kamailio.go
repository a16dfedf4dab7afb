package main

import (
	"bytes"
	"context"
	_ "embed" // the configuration of Kamailio
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
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
	var log bytes.Buffer
	cmd := exec.Command(bin, "-f", cfg, "-DD", "-E", "-m", "4096", "-M", "16", "-Y", dir, "-P", filepath.Join(dir, "pid")) //nolint:gosec // G204: found by LookPath
	cmd.Stderr = &log
	// A group of its own, so that its children can be ended with it, and the kernel's word
	// that it ends with us.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	ended := make(chan struct{})
	go func() { _ = cmd.Wait(); close(ended) }()
	e := &edge{addr: tcp, pid: cmd.Process.Pid, stop: func() { stopGroup(cmd.Process.Pid, ended) }}
	if err := waitUntilListening(ctx, tcp, ended); err != nil {
		e.stop()
		return nil, fmt.Errorf("kamailio: %w; it said: %s", err, lastLines(log.String()))
	}
	return e, nil
}

// stopGroup ends Kamailio gently, then its whole group.
func stopGroup(pid int, ended <-chan struct{}) {
	_ = syscall.Kill(pid, syscall.SIGTERM)
	select {
	case <-ended:
	case <-time.After(10 * time.Second):
	}
	_ = syscall.Kill(-pid, syscall.SIGKILL)
	<-ended
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

// lastLines is the end of a log that fits into an error.
func lastLines(s string) string { return s[max(0, len(s)-600):] }
