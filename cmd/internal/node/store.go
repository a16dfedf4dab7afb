package node

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"

	"epcscf/store"
	"epcscf/store/bolt"
	"epcscf/store/memory"
	"epcscf/store/postgres"
)

// StoreKind says where records are kept.
type StoreKind string

// The kinds of stores.
const (
	StoreMemory   StoreKind = "memory"   // gone with the process
	StoreBolt     StoreKind = "bolt"     // a file
	StorePostgres StoreKind = "postgres" // a database, for more than one node
)

// Store says where records are kept, and under which keys.
type Store struct {
	Kind          StoreKind
	File          string      // of bolt
	DatabaseURL   string      // of postgres; it may have a password, so it is never printed
	AllowInsecure bool        // of postgres: to another host without TLS that checks it
	Late          bool        // of postgres: it need not answer yet
	KEK           store.KEK   // not needed for memory
	OlderKEKs     []store.KEK // that rows may still be under
}

// OpenStore opens a store.
func OpenStore(ctx context.Context, cfg Store, log *slog.Logger) (store.Store, error) {
	if cfg.Kind == StoreMemory {
		return memory.New(memory.Config{})
	}
	keks, err := store.NewKEKs(cfg.KEK, cfg.OlderKEKs...)
	if err != nil {
		return nil, err
	}
	switch cfg.Kind {
	case StoreBolt:
		return bolt.Open(ctx, bolt.Config{File: cfg.File, KEKs: keks})
	case StorePostgres:
		return postgres.Open(ctx, postgres.Config{DSN: cfg.DatabaseURL, AllowInsecure: cfg.AllowInsecure, Late: cfg.Late, KEKs: keks, Logger: log})
	}
	return nil, fmt.Errorf("unknown kind of store %q: want %s, %s or %s", cfg.Kind, StoreMemory, StoreBolt, StorePostgres)
}

// ReadDatabaseURL reads a connection string, which may have a password, from a file of its
// own that nobody but its owner may read.
func ReadDatabaseURL(name string) (string, error) {
	data, err := readPrivate(name, 0o077)
	if err != nil {
		return "", err
	}
	data = bytes.TrimSpace(data)
	if len(data) == 0 || bytes.ContainsAny(data, "\r\n") {
		return "", fmt.Errorf("%s: want one line, such as postgres://epcscf:PASSWORD@db.example/epcscf?sslrootcert=/etc/epcscf/db-ca.pem", name)
	}
	return string(data), nil
}

// CheckDatabaseURL reports what is wrong with a connection string, without connecting.
func CheckDatabaseURL(url string, allowInsecure bool) error {
	return postgres.CheckDSN(url, allowInsecure)
}
