package main

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"epcscf/bench/internal/subject"
	"epcscf/internal/gctune"
	"epcscf/proxy"
	"epcscf/turncred"
	"epcscf/turncred/push"
	"epcscf/turncred/sharedkey"
)

// edgeMode as the first argument makes this program the edge under test.
const edgeMode = "edge-process"

// edgeMain serves until its standard input ends, and returns the exit status.
func edgeMain(args []string) int {
	return subject.Main(func() error { return edgeRun(args, os.Stdin, os.Stdout) })
}

func edgeRun(args []string, in io.Reader, out io.Writer) error {
	defer gctune.Start()() // as cmd/epcscf does
	fs := flag.NewFlagSet(edgeMode, flag.ContinueOnError)
	approach := fs.String("approach", "", "shared-key or push")
	cert := fs.String("cert", "", "certificate file")
	key := fs.String("key", "", "key file")
	coreAddr := fs.String("core", "", "UDP address of the core")
	level := fs.String("log", "off", "off, info or debug")
	logFile := fs.String("log-file", "", "where logs go")
	if err := fs.Parse(args); err != nil {
		return err
	}
	pair, err := tls.LoadX509KeyPair(*cert, *key)
	if err != nil {
		return err
	}
	logger, err := newLogger(*level, *logFile)
	if err != nil {
		return err
	}
	udp, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(netip.MustParseAddrPort("127.0.0.1:0")))
	if err != nil {
		return err
	}
	px, err := newProxy(turncred.Approach(*approach), *coreAddr, udp, logger)
	if err != nil {
		return err
	}
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		return err
	}
	web := &http.Server{
		Handler: px, ReadHeaderTimeout: 30 * time.Second, ErrorLog: slog.NewLogLogger(logger.Handler(), slog.LevelDebug),
		TLSConfig: &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{pair}, NextProtos: []string{"http/1.1"}},
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 2)
	go func() { ended <- px.ServeCore(ctx, udp, nil) }()
	go func() { ended <- web.ServeTLS(l, "", "") }()

	err = subject.Obey(in, out, l.Addr().String())
	cancel()
	err = errors.Join(err, px.Close(), web.Close())
	for range 2 {
		if e := <-ended; !errors.Is(e, http.ErrServerClosed) {
			err = errors.Join(err, e)
		}
	}
	return err
}

func newLogger(level, file string) (*slog.Logger, error) {
	if level == "off" {
		return slog.New(slog.DiscardHandler), nil
	}
	var l slog.Level
	if err := l.UnmarshalText([]byte(level)); err != nil {
		return nil, fmt.Errorf("-log: %w", err)
	}
	w, err := os.OpenFile(file, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	return slog.New(slog.NewTextHandler(w, &slog.HandlerOptions{Level: l})), nil
}

// newProxy wires the edge as an operator's is, with metrics, but without a relay: there is
// nobody to allocate.
func newProxy(a turncred.Approach, coreAddr string, udp *net.UDPConn, logger *slog.Logger) (*proxy.Proxy, error) {
	next, err := proxy.ParseNextHop("udp:" + coreAddr)
	if err != nil {
		return nil, err
	}
	provisioner, err := newProvisioner(a)
	if err != nil {
		return nil, err
	}
	return proxy.New(proxy.Config{
		Domain: domain, CoreAddr: udp.LocalAddr().(*net.UDPAddr).AddrPort(), NextHops: []proxy.NextHop{next}, AllowNoOrigin: true,
		Provisioner: provisioner, Logger: logger, Metrics: prometheus.NewRegistry(),
		Limits: proxy.Limits{Rate: -1}, // these flows register as fast as they are answered
	})
}

func newProvisioner(a turncred.Approach) (turncred.Provisioner, error) {
	secret := func() turncred.Secret {
		b := make([]byte, turncred.MinSecretLen)
		_, _ = rand.Read(b) // never fails (crypto/rand)
		return turncred.NewSecret(b)
	}
	codec, err := turncred.NewTidCodec(secret())
	if err != nil {
		return nil, err
	}
	const kid turncred.KeyID = "bench1"
	ring, err := turncred.NewKeyRing(turncred.Key{ID: kid, Secret: secret()})
	if err != nil {
		return nil, err
	}
	m, err := turncred.NewMinter(turncred.MinterConfig{
		Codec: codec, Realm: domain, MaxTTL: 10 * time.Minute, Revoker: noRelay{},
		URIs: []string{"turns:127.0.0.1:5349?transport=tcp", "turn:127.0.0.1:3478?transport=udp", "turn:127.0.0.1:3478?transport=tcp"},
	})
	if err != nil {
		return nil, err
	}
	switch a {
	case turncred.ApproachSharedKey:
		return sharedkey.NewIssuer(m, ring, sharedkey.HMACSHA1), nil
	case turncred.ApproachPush:
		return push.NewIssuer(m, kid, push.NewTable(domain, nil)), nil
	}
	return nil, fmt.Errorf("-approach is %q: use %q or %q", a, turncred.ApproachSharedKey, turncred.ApproachPush)
}

// noRelay has nothing to revoke.
type noRelay struct{}

// Revoke implements turncred.Revoker.
func (noRelay) Revoke(context.Context, turncred.Revocation) error { return nil }
