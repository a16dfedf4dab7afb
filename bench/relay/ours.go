package main

import (
	"context"
	"errors"
	"flag"
	"io"
	"net/netip"
	"runtime"
	"time"

	"golang.org/x/sync/errgroup"

	"epcscf/bench/internal/subject"
	"epcscf/internal/gctune"
	"epcscf/relay"
	"epcscf/turncred"
	"epcscf/turncred/sharedkey"
)

// oursMode as the first argument makes this program our relay, the process under test.
const oursMode = "relay-process"

func ours() contender {
	return contender{
		name: "epcscf", ours: true, credential: ourCredential,
		start: func() (*server, error) { return fromSubject(subject.Start(oursMode)) },
	}
}

// The keys are constants, so that both processes have them.
func ourKeys() (*turncred.KeyRing, *turncred.TidCodec, error) {
	secret := turncred.NewSecret([]byte("0123456789abcdef0123456789abcdef"))
	codec, err := turncred.NewTidCodec(secret)
	if err != nil {
		return nil, nil, err
	}
	ring, err := turncred.NewKeyRing(turncred.Key{ID: "bench1", Secret: secret})
	return ring, codec, err
}

func ourCredential() (username, password string, err error) {
	ring, codec, err := ourKeys()
	if err != nil {
		return "", "", err
	}
	m, err := turncred.NewMinter(turncred.MinterConfig{
		Codec: codec, Realm: realm, MaxTTL: time.Hour, Revoker: noRevoker{}, URIs: []string{"turn:127.0.0.1"},
	})
	if err != nil {
		return "", "", err
	}
	c, err := sharedkey.NewIssuer(m, ring, sharedkey.HMACSHA1).Provision(context.Background(), turncred.Request{IMPI: "bench@ims.test", Life: time.Hour})
	return c.Username, string(c.Password.Reveal()), err
}

// noRevoker has nothing to revoke.
type noRevoker struct{}

// Revoke implements turncred.Revoker.
func (noRevoker) Revoke(context.Context, turncred.Revocation) error { return nil }

// oursRun serves until its standard input ends.
func oursRun(args []string, in io.Reader, out io.Writer) error {
	defer gctune.Start()() // as cmd/epcscf does
	fs := flag.NewFlagSet(oursMode, flag.ContinueOnError)
	listeners := fs.Int("listeners", runtime.NumCPU(), "UDP sockets that share the address")
	if err := fs.Parse(args); err != nil {
		return err
	}
	ring, codec, err := ourKeys()
	if err != nil {
		return err
	}
	auth, err := sharedkey.NewAuthenticator(sharedkey.AuthenticatorConfig{Ring: ring, Codec: codec, Realm: realm})
	if err != nil {
		return err
	}
	loopback := netip.MustParseAddr("127.0.0.1")
	srv, err := relay.New(relay.Config{
		Realm: realm, Auth: auth, RelayIP: loopback, MinPort: minPort, MaxPort: maxPort,
		AllowPeers:               []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")},
		MaxAllocationsPerSubject: 1 << 20, ChallengeRate: 1 << 20, // all clients are one
	})
	if err != nil {
		return err
	}
	conns, err := relay.ListenUDP(context.Background(), netip.AddrPortFrom(loopback, 0), *listeners)
	if err != nil {
		return err
	}
	var g errgroup.Group
	for _, pc := range conns {
		g.Go(func() error { return srv.ServeUDP(pc) })
	}
	err = subject.Obey(in, out, conns[0].LocalAddr().String())
	return errors.Join(err, srv.Close(), g.Wait())
}
