package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"time"

	"epcscf/store"
	"epcscf/store/wal"
	"epcscf/turncred"
	"epcscf/turncred/push"
)

// world is a relay's side and an edge's side of the interface.
type world struct {
	fleet  *push.Fleet
	closes []func() error
}

func (w *world) close() error {
	var errs []error
	for _, f := range w.closes {
		errs = append(errs, f())
	}
	return errors.Join(errs...)
}

const (
	domain                = "ims.test"
	realm  turncred.Realm = "ims.test"
)

func newWorld(ctx context.Context, dir string, durable bool) (w *world, err error) {
	w = &world{}
	defer func() {
		if err != nil {
			err = errors.Join(err, w.close())
		}
	}()
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return w, err
	}
	a, err := push.NewAuthority(domain, time.Hour, time.Now())
	if err != nil {
		return w, err
	}
	addr, err := w.startRelay(ctx, a, dir, durable)
	if err != nil {
		return w, err
	}
	return w, w.startEdge(ctx, a, addr)
}

func (w *world) startRelay(ctx context.Context, a *push.Authority, dir string, durable bool) (addr string, err error) {
	table := push.NewTable(realm, nil)
	if durable {
		keks, err := store.NewKEKs(store.KEK{ID: "bench", Secret: turncred.NewSecret(make([]byte, 32))})
		if err != nil {
			return "", err
		}
		log, err := wal.Open(wal.Config{Dir: filepath.Join(dir, "credentials"), KEKs: keks})
		if err != nil {
			return "", err
		}
		w.closes = append(w.closes, log.Close)
		if table, err = push.OpenTable(ctx, realm, log, nil); err != nil {
			return "", err
		}
	}
	keys, err := keysOf(a, push.Peer{Domain: domain, Role: push.RoleRelay, Name: "relay1"}, "127.0.0.1")
	if err != nil {
		return "", err
	}
	srv, err := push.NewServer(push.ServerConfig{Domain: domain, Name: "relay1", Realm: realm, Keys: keys, Table: table, Revoker: nobody{}})
	if err != nil {
		return "", err
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	done := make(chan error, 1)
	go func() { done <- srv.Serve(ln) }()
	w.closes = append([]func() error{func() error { return errors.Join(srv.Close(), <-done) }}, w.closes...)
	return ln.Addr().String(), nil
}

func (w *world) startEdge(ctx context.Context, a *push.Authority, addr string) error {
	keys, err := keysOf(a, push.Peer{Domain: domain, Role: push.RoleEdge, Name: "edge1"})
	if err != nil {
		return err
	}
	w.fleet, err = push.NewFleet(ctx, push.FleetConfig{
		Domain: domain, Name: "edge1", Epoch: 1, Keys: keys, Journal: nobody{},
		Relays: []push.RelayConfig{{Name: "relay1", Address: addr, URIs: []string{"turn:relay1.ims.test"}, Weight: 1}},
	})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan error, 1)
	go func() { done <- w.fleet.Run(ctx) }()
	w.closes = append([]func() error{func() error { cancel(); return <-done }}, w.closes...)
	return nil
}

func keysOf(a *push.Authority, p push.Peer, hosts ...string) (push.Keys, error) {
	cert, key, err := a.Issue(p, hosts, time.Hour, time.Now())
	if err != nil {
		return nil, err
	}
	pair, err := tls.X509KeyPair(cert, key.Reveal())
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(a.PEM())
	return &push.FixedKeys{Pair: pair, Pool: pool}, nil
}

// credentials makes n, a user each.
func (w *world) credentials(ctx context.Context, n int) (rs []push.Record, err error) {
	codec, err := turncred.NewTidCodec(turncred.NewSecret(make([]byte, turncred.MinSecretLen)))
	if err != nil {
		return nil, err
	}
	m, err := turncred.NewMinter(turncred.MinterConfig{Codec: codec, Realm: realm, URIs: []string{"turn:x"}, Revoker: nobody{}})
	if err != nil {
		return nil, err
	}
	issuer := push.NewIssuer(m, "p1", collect{&rs})
	for i := range n {
		if _, err := issuer.Provision(ctx, turncred.Request{IMPI: turncred.IMPI(fmt.Sprintf("user%d@ims.test", i)), Life: time.Hour}); err != nil {
			return nil, err
		}
	}
	return rs, nil
}

// collect is a Sink that keeps what it is given.
type collect struct{ to *[]push.Record }

// Put implements push.Sink.
func (c collect) Put(_ context.Context, r push.Record) error {
	*c.to = append(*c.to, r)
	return nil
}

// nobody revokes nothing, and is a Journal that stays empty.
type nobody struct{}

// Revoke implements turncred.Revoker.
func (nobody) Revoke(context.Context, turncred.Revocation) error { return nil }

// Add implements push.Journal.
func (nobody) Add(context.Context, string, turncred.Revocation) (uint64, error) {
	return 0, errors.New("nothing is revoked here")
}

// Done implements push.Journal.
func (nobody) Done(context.Context, ...uint64) error { return nil }

// Pending implements push.Journal.
func (nobody) Pending(context.Context, func(uint64, string, turncred.Revocation) error) error {
	return nil
}
