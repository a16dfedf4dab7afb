// Package storetest is the suite that every store.Store passes.
package storetest

import (
	"bytes"
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"epcscf/store"
	"epcscf/turncred"
	"epcscf/turncred/push"
)

// Config is what a store is opened with.
type Config struct {
	KEKs *store.KEKs
	Now  func() time.Time
}

// World is a kind of store under test.
type World interface {
	// Open opens the store, again after it was closed: with what was written before.
	Open(cfg Config) (store.Store, error)
}

// Noun is an interface of package store, which the suite has a test for.
type Noun string

// The nouns, in the order in which they came about.
const (
	Credentials Noun = "Credentials"
	Revocations Noun = "Revocations"
	Keys        Noun = "Keys"
	Changes     Noun = "Changes"
	Relays      Noun = "Relays"
	Edges       Noun = "Edges"
	Clients     Noun = "Clients"
	Users       Noun = "Users"
	Grants      Noun = "Grants"
	Loans       Noun = "Loans"
	Audit       Noun = "Audit"
)

// All are all nouns.
var All = []Noun{Credentials, Revocations, Keys, Changes, Relays, Edges, Clients, Users, Grants, Loans, Audit}

// Run runs the tests of nouns, all by default. newWorld makes an empty one. Each test is
// of one world and leaves no goroutine behind.
func Run(t *testing.T, newWorld func(t *testing.T) World, nouns ...Noun) {
	if len(nouns) == 0 {
		nouns = All
	}
	tests := map[Noun][]struct {
		name string
		run  func(*fixture)
	}{
		Credentials: {{"Once", credentialsOnce}, {"Batch", credentialsBatch}, {"Expire", credentialsExpire}, {"ManyWriters", credentialsManyWriters}, {"Refused", credentialsRefused}},
		Revocations: {{"Grow", revocationsGrow}},
		Keys:        {{"Life", keysLife}, {"Refused", keysRefused}, {"Reseal", reseal}, {"WrongKEK", wrongKEK}},
		Changes:     {{"Watch", watch}, {"OldCursor", oldCursor}},
		Relays:      {{"Registry", relays}},
		Edges:       {{"Epochs", epochs}},
		Clients:     {{"Life", clients}},
		Users:       {{"Life", users}},
		Grants:      {{"Once", grantsOnce}, {"OneWins", grantsOneWins}, {"Family", grantsFamily}, {"Expire", grantsExpire}},
		Loans:       {{"Life", loans}, {"NeverTwice", loansNeverTwice}},
		Audit:       {{"Trail", auditTrail}},
	}
	for _, noun := range nouns {
		t.Run(string(noun), func(t *testing.T) {
			for _, tt := range tests[noun] {
				t.Run(tt.name, func(t *testing.T) { tt.run(newFixture(t, newWorld(t))) })
			}
		})
	}
}

// Epoch is when the clock of a test begins: whole microseconds, which all stores keep.
var Epoch = time.Date(2031, 5, 6, 7, 8, 9, 0, time.UTC)

// Clock is a clock that a test turns. The zero Clock stands at Epoch.
type Clock struct {
	mu     sync.Mutex // guards passed
	passed time.Duration
}

// Now returns the time.
func (c *Clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return Epoch.Add(c.passed)
}

// Pass turns the clock on.
func (c *Clock) Pass(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.passed += d
}

// KEK returns a key-encryption key of 32 equal bytes.
func KEK(id turncred.KeyID, fill byte) store.KEK {
	return store.KEK{ID: id, Secret: turncred.NewSecret(bytes.Repeat([]byte{fill}, 32))}
}

// fixture is a test of one world.
type fixture struct {
	*testing.T
	ctx   context.Context
	world World
	clock *Clock
	keks  *store.KEKs
	s     store.Store
}

func newFixture(t *testing.T, w World) *fixture {
	keks, err := store.NewKEKs(KEK("kek1", 1))
	if err != nil {
		t.Fatal(err)
	}
	f := &fixture{T: t, ctx: t.Context(), world: w, clock: &Clock{}, keks: keks}
	f.reopen()
	t.Cleanup(func() {
		if err := f.s.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
	return f
}

// reopen closes the store and opens it again.
func (f *fixture) reopen() {
	f.Helper()
	if f.s != nil {
		f.ok(f.s.Close())
	}
	s, err := f.world.Open(Config{f.keks, f.clock.Now})
	f.ok(err)
	f.s = s
}

func (f *fixture) ok(err error) {
	f.Helper()
	if err != nil {
		f.Fatal(err)
	}
}

func (f *fixture) is(err, want error) {
	f.Helper()
	if !errors.Is(err, want) {
		f.Fatalf("error is %v, want %v", err, want)
	}
}

// atOnce runs n calls at the same time and returns what each returned.
func (f *fixture) atOnce(n int, call func(i int) error) []error {
	errs := make([]error, n)
	begin := make(chan struct{})
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			<-begin
			errs[i] = call(i)
		})
	}
	close(begin)
	wg.Wait()
	return errs
}

// winners counts the calls without an error; all others must have wrapped want.
func (f *fixture) winners(errs []error, want error) int {
	f.Helper()
	n := 0
	for _, err := range errs {
		if err == nil {
			n++
		} else {
			f.is(err, want)
		}
	}
	return n
}

// Credential returns a record; the same arguments make the same one.
func Credential(tid turncred.Tid, texp time.Time) push.Record {
	name := turncred.Order3GPP.Username(tid, texp)
	return push.Record{
		Tid: tid, Username: name, Realm: "ims.example", Texp: texp,
		Key:      turncred.NewLongTermKey(name, "ims.example", turncred.NewSecret([]byte("the password of "+name))),
		Identity: turncred.Identity{Subject: 1<<63 + 7, Issued: turncred.IssueTimeAt(texp.Add(-time.Hour)), Binding: 0xFFFF},
	}
}
