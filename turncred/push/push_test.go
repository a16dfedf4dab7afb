package push

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"epcscf/turncred"
)

type noRevoker struct{}

func (noRevoker) Revoke(context.Context, turncred.Revocation) error { return nil }

type sinkFunc func(context.Context, Record) error

func (f sinkFunc) Put(ctx context.Context, r Record) error { return f(ctx, r) }

func newIssuer(t *testing.T, sink Sink, now func() time.Time) *Issuer {
	t.Helper()
	codec, err := turncred.NewTidCodec(turncred.NewSecret([]byte(strings.Repeat("d", 32))))
	if err != nil {
		t.Fatal(err)
	}
	m, err := turncred.NewMinter(turncred.MinterConfig{Codec: codec, Realm: "ims.test", URIs: []string{"turn:127.0.0.1"}, Revoker: noRevoker{}, Now: now})
	if err != nil {
		t.Fatal(err)
	}
	return NewIssuer(m, "p1", sink)
}

func TestTableTakesWhatTheIssuerPushed(t *testing.T) {
	now := time.Unix(1_700_000_000, 0)
	table := NewTable("ims.test", func() time.Time { return now })
	c, err := newIssuer(t, table, func() time.Time { return now }).Provision(t.Context(), turncred.Request{IMPI: "alice@ims.test", Binding: 3, Life: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	p, err := table.Authenticate(c.Username, now)
	if err != nil || p.Tid != c.Tid || !p.Texp.Equal(c.Texp) || !p.Key.Equal(turncred.NewLongTermKey(c.Username, "ims.test", c.Password)) {
		t.Fatalf("Authenticate(%q) = %s, %v, %v", c.Username, p.Tid, p.Texp, err)
	}
	if id, err := p.Identify(); err != nil || id != c.Identity {
		t.Errorf("Identify = %+v, %v; want %+v", id, err, c.Identity)
	}
	// The right Tid with a later expiry is another user name.
	if _, err := table.Authenticate(turncred.Order3GPP.Username(c.Tid, c.Texp.Add(time.Hour)), now); !errors.Is(err, turncred.ErrUnknownUser) {
		t.Errorf("Authenticate with another Texp: %v, want ErrUnknownUser", err)
	}
}

func TestPutIsWriteOnce(t *testing.T) {
	table := NewTable("ims.test", nil)
	r := Record{Tid: "a-AAAAAAAAAAAAAAAAAAAAAA", Username: "x", Realm: "ims.test", Key: turncred.NewLongTermKey("x", "ims.test", turncred.NewSecret([]byte("p"))), Texp: time.Unix(1, 0)}
	other := r
	other.Key = turncred.NewLongTermKey("x", "ims.test", turncred.NewSecret([]byte("q")))
	for _, step := range []struct {
		r    Record
		want error
	}{{r, nil}, {r, nil}, {other, ErrConflict}} {
		if err := table.Put(t.Context(), step.r); !errors.Is(err, step.want) {
			t.Errorf("Put = %v, want %v", err, step.want)
		}
	}
}

func TestTableForgetsWhatExpired(t *testing.T) {
	now := time.Unix(1_700_000_000, 0)
	table := NewTable("ims.test", func() time.Time { return now })
	for i := range 4 * pruneEvery {
		r := Record{Tid: turncred.Tid(fmt.Sprint(i)), Texp: now.Add(time.Second)}
		if err := table.Put(t.Context(), r); err != nil {
			t.Fatal(err)
		}
		if i%16 == 0 {
			now = now.Add(time.Second)
		}
	}
	if n := table.Len(); n > 2*pruneEvery {
		t.Errorf("table holds %d records of which 16 live, want at most %d", n, 2*pruneEvery)
	}
}

func TestUnreachableRelayIsUnavailable(t *testing.T) {
	hangs := sinkFunc(func(ctx context.Context, _ Record) error { <-ctx.Done(); return ctx.Err() })
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	_, err := newIssuer(t, hangs, nil).Provision(ctx, turncred.Request{IMPI: "alice@ims.test", Life: time.Minute})
	var u *turncred.UnavailableError
	if !errors.As(err, &u) || u.Reason != turncred.ReasonRelayUnreachable || u.RetryAfter <= 0 || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Provision = %v, want unavailable, relay-unreachable, with a retry-after", err)
	}
}
