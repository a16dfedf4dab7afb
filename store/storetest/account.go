package storetest

import (
	"fmt"
	"slices"
	"sync"
	"time"

	"epcscf/store"
	"epcscf/turncred"
)

func clients(f *fixture) {
	c := store.Client{
		ID: "page", Name: "The page", RedirectURIs: []string{"https://phone.example/cb", "https://phone.example/cb2"},
		GrantTypes: []string{"authorization_code"}, Scopes: []string{"a", "b"}, Audiences: []string{"turn.example"},
		SecretHash: turncred.NewSecret([]byte("$argon2id$hash")), Data: []byte(`{"contacts":["ops@phone.example"]}`),
	}
	f.ok(f.s.AddClient(f.ctx, c))
	f.is(f.s.AddClient(f.ctx, c), store.ErrConflict)
	f.is(f.s.AddClient(f.ctx, store.Client{}), store.ErrInvalid)
	f.ok(f.s.AddClient(f.ctx, store.Client{ID: "bare"}))
	f.clock.Pass(time.Hour)
	f.reopen()
	f.wantClient(c, Epoch)

	c.Name, c.Disabled, c.SecretHash, c.RedirectURIs = "Another", true, turncred.Secret{}, nil
	f.ok(f.s.SetClient(f.ctx, c))
	f.wantClient(c, Epoch)
	f.is(f.s.SetClient(f.ctx, store.Client{ID: "none"}), store.ErrNotFound)
	cs, err := f.s.Clients(f.ctx)
	f.ok(err)
	if len(cs) != 2 || cs[0].ID != "bare" || cs[1].ID != "page" {
		f.Errorf("clients are %+v, want bare and page", cs)
	}
	f.ok(f.s.DeleteClient(f.ctx, "page"))
	f.is(f.s.DeleteClient(f.ctx, "page"), store.ErrNotFound)
	_, err = f.s.Client(f.ctx, "page")
	f.is(err, store.ErrNotFound)
}

func (f *fixture) wantClient(want store.Client, created time.Time) {
	f.Helper()
	got, err := f.s.Client(f.ctx, want.ID)
	f.ok(err)
	if !got.SecretHash.Equal(want.SecretHash) || got.Name != want.Name || !slices.Equal(got.RedirectURIs, want.RedirectURIs) ||
		!slices.Equal(got.GrantTypes, want.GrantTypes) || !slices.Equal(got.Scopes, want.Scopes) || !slices.Equal(got.Audiences, want.Audiences) ||
		got.Disabled != want.Disabled || string(got.Data) != string(want.Data) || !got.Created.Equal(created) {
		f.Errorf("client is %+v, want %+v", got, want)
	}
}

func users(f *fixture) {
	u := store.User{Name: "anna", PasswordHash: turncred.NewSecret([]byte("$argon2id$hash")), IMPI: "anna@ims.example", IMPUs: []string{"sip:anna@ims.example", "tel:+1"}, Class: "gold"}
	f.ok(f.s.AddUser(f.ctx, u))
	f.is(f.s.AddUser(f.ctx, u), store.ErrConflict)
	f.is(f.s.AddUser(f.ctx, store.User{}), store.ErrInvalid)
	f.reopen()
	got, err := f.s.User(f.ctx, "anna")
	f.ok(err)
	if !got.PasswordHash.Equal(u.PasswordHash) || got.IMPI != u.IMPI || !slices.Equal(got.IMPUs, u.IMPUs) || got.Class != "gold" || got.Disabled || !got.Created.Equal(Epoch) {
		f.Errorf("user is %+v, want %+v", got, u)
	}
	u.Disabled, u.PasswordHash = true, turncred.NewSecret([]byte("$argon2id$other"))
	f.ok(f.s.SetUser(f.ctx, u))
	f.is(f.s.SetUser(f.ctx, store.User{Name: "none"}), store.ErrNotFound)
	us, err := f.s.Users(f.ctx)
	f.ok(err)
	if len(us) != 1 || !us[0].Disabled || !us[0].PasswordHash.Equal(u.PasswordHash) {
		f.Errorf("users are %+v, want anna, disabled", us)
	}
	f.ok(f.s.DeleteUser(f.ctx, "anna"))
	f.is(f.s.DeleteUser(f.ctx, "anna"), store.ErrNotFound)
	_, err = f.s.User(f.ctx, "anna")
	f.is(err, store.ErrNotFound)

	if n := f.winners(f.atOnce(8, func(int) error { return f.s.AddUser(f.ctx, u) }), store.ErrConflict); n != 1 {
		f.Errorf("%d added the user, want 1", n)
	}
}

func grant(secret string) store.Grant {
	return store.Grant{
		Hash: store.HashGrant(secret), Kind: store.GrantCode, Family: "family of " + secret, Client: "page", User: "anna",
		Expires: Epoch.Add(time.Minute), Data: []byte(`{"scope":"a"}`),
	}
}

func grantsOnce(f *fixture) {
	g := grant("s1")
	f.ok(f.s.AddGrant(f.ctx, g))
	f.is(f.s.AddGrant(f.ctx, g), store.ErrConflict)
	f.is(f.s.AddGrant(f.ctx, store.Grant{Kind: store.GrantCode}), store.ErrInvalid)
	f.reopen()

	_, err := f.s.ConsumeGrant(f.ctx, store.GrantRefresh, g.Hash)
	f.is(err, store.ErrNotFound) // a code is no refresh token
	got, err := f.s.ConsumeGrant(f.ctx, store.GrantCode, g.Hash)
	f.ok(err)
	if got.Hash != g.Hash || got.Kind != g.Kind || got.Family != g.Family || got.Client != g.Client || got.User != g.User || !got.Expires.Equal(g.Expires) || string(got.Data) != string(g.Data) {
		f.Errorf("grant is %+v, want %+v", got, g)
	}
	f.reopen()
	f.clock.Pass(time.Hour) // reuse is seen after the expiry too
	got, err = f.s.ConsumeGrant(f.ctx, store.GrantCode, g.Hash)
	f.is(err, store.ErrUsed)
	if got.Family != g.Family {
		f.Errorf("the family of a used grant is %q, want %q", got.Family, g.Family)
	}
	_, err = f.s.ConsumeGrant(f.ctx, store.GrantCode, store.HashGrant("none"))
	f.is(err, store.ErrNotFound)
}

func grantsOneWins(f *fixture) {
	f.ok(f.s.AddGrant(f.ctx, grant("s1")))
	errs := f.atOnce(24, func(int) error {
		_, err := f.s.ConsumeGrant(f.ctx, store.GrantCode, store.HashGrant("s1"))
		return err
	})
	if n := f.winners(errs, store.ErrUsed); n != 1 {
		f.Errorf("%d consumed one code, want 1", n)
	}
}

func grantsFamily(f *fixture) {
	a, b := grant("a"), grant("b")
	b.Kind, b.Family = store.GrantRefresh, a.Family
	f.ok(f.s.AddGrant(f.ctx, a))
	f.ok(f.s.AddGrant(f.ctx, b))
	f.wantFamily(a.Family, false)
	f.ok(f.s.RevokeFamily(f.ctx, a.Family, Epoch.Add(time.Hour)))
	f.ok(f.s.RevokeFamily(f.ctx, a.Family, Epoch.Add(time.Minute))) // does not shorten it
	f.reopen()
	f.wantFamily(a.Family, true)
	_, err := f.s.ConsumeGrant(f.ctx, store.GrantRefresh, b.Hash)
	f.is(err, store.ErrRevoked)
	c := grant("c")
	c.Family = a.Family
	f.is(f.s.AddGrant(f.ctx, c), store.ErrRevoked)
	f.ok(f.s.AddGrant(f.ctx, grant("d")))
	f.is(f.s.RevokeFamily(f.ctx, "", Epoch), store.ErrInvalid)

	f.clock.Pass(59 * time.Minute)
	_, err = f.s.Prune(f.ctx)
	f.ok(err)
	f.wantFamily(a.Family, true)
	f.clock.Pass(time.Minute)
	_, err = f.s.Prune(f.ctx)
	f.ok(err)
	f.wantFamily(a.Family, false)
}

func (f *fixture) wantFamily(family string, want bool) {
	f.Helper()
	got, err := f.s.FamilyRevoked(f.ctx, family)
	f.ok(err)
	if got != want {
		f.Errorf("FamilyRevoked(%q) = %v, want %v", family, got, want)
	}
}

func grantsExpire(f *fixture) {
	g := grant("s1")
	g.Family = ""
	f.ok(f.s.AddGrant(f.ctx, g))
	f.clock.Pass(time.Minute)
	_, err := f.s.ConsumeGrant(f.ctx, g.Kind, g.Hash)
	f.is(err, store.ErrExpired)
	f.clock.Pass(store.UsedGrantKept)
	n, err := f.s.Prune(f.ctx)
	f.ok(err)
	if n != 1 {
		f.Errorf("Prune = %d, want 1", n)
	}
	_, err = f.s.ConsumeGrant(f.ctx, g.Kind, g.Hash)
	f.is(err, store.ErrNotFound)
}

func identity(i int) store.LentIdentity {
	name := fmt.Sprintf("guest%02d@ims.example", i)
	return store.LentIdentity{IMPI: turncred.IMPI(name), IMPUs: []string{"sip:" + name}, Class: "guest"}
}

func loans(f *fixture) {
	for i := range 2 {
		f.ok(f.s.AddIdentity(f.ctx, identity(i)))
		f.clock.Pass(time.Second)
	}
	f.is(f.s.AddIdentity(f.ctx, identity(0)), store.ErrConflict)
	f.is(f.s.AddIdentity(f.ctx, store.LentIdentity{}), store.ErrInvalid)
	until := Epoch.Add(time.Hour)
	a, err := f.s.Acquire(f.ctx, "guest", "token a", until)
	f.ok(err)
	b, err := f.s.Acquire(f.ctx, "guest", "token b", until)
	f.ok(err)
	if a.IMPI == b.IMPI || len(a.IMPUs) != 1 || a.Holder != "token a" || !a.Until.Equal(until) {
		f.Fatalf("lent are %+v and %+v, want two", a, b)
	}
	f.reopen()
	for _, class := range []string{"guest", "other"} {
		_, err = f.s.Acquire(f.ctx, class, "token c", until)
		f.is(err, store.ErrExhausted)
	}
	f.is(f.s.DeleteIdentity(f.ctx, a.IMPI), store.ErrConflict)
	f.is(f.s.Release(f.ctx, a.IMPI, "token b"), store.ErrNotFound)
	f.is(f.s.Renew(f.ctx, a.IMPI, "token b", until), store.ErrNotFound)
	f.is(f.s.Release(f.ctx, "none", "token b"), store.ErrNotFound)

	// What is released can be lent again, and its old holder has it no more.
	f.ok(f.s.Release(f.ctx, a.IMPI, "token a"))
	c, err := f.s.Acquire(f.ctx, "guest", "token c", until)
	f.ok(err)
	if c.IMPI != a.IMPI {
		f.Errorf("lent is %s, want %s", c.IMPI, a.IMPI)
	}
	f.is(f.s.Renew(f.ctx, a.IMPI, "token a", until), store.ErrNotFound)
	f.ok(f.s.Renew(f.ctx, c.IMPI, "token c", until.Add(time.Hour)))

	// A loan ends by itself.
	f.clock.Pass(time.Hour)
	f.is(f.s.Renew(f.ctx, b.IMPI, "token b", until.Add(time.Hour)), store.ErrNotFound)
	d, err := f.s.Acquire(f.ctx, "guest", "token d", until.Add(time.Hour))
	f.ok(err)
	if d.IMPI != b.IMPI {
		f.Errorf("lent is %s, want %s, whose loan has ended", d.IMPI, b.IMPI)
	}
	f.ok(f.s.Release(f.ctx, d.IMPI, "token d"))
	f.ok(f.s.DeleteIdentity(f.ctx, d.IMPI))
	f.is(f.s.DeleteIdentity(f.ctx, d.IMPI), store.ErrNotFound)
	ids, err := f.s.Identities(f.ctx, "")
	f.ok(err)
	if len(ids) != 1 || ids[0].IMPI != c.IMPI || ids[0].Holder != "token c" {
		f.Errorf("identities are %+v, want %s, lent to token c", ids, c.IMPI)
	}
}

func loansNeverTwice(f *fixture) {
	const pool, borrowers = 5, 20
	for i := range pool {
		f.ok(f.s.AddIdentity(f.ctx, identity(i)))
	}
	var mu sync.Mutex // guards lent
	lent := map[turncred.IMPI]int{}
	errs := f.atOnce(borrowers, func(i int) error {
		id, err := f.s.Acquire(f.ctx, "guest", fmt.Sprint("token ", i), Epoch.Add(time.Hour))
		if err == nil {
			mu.Lock()
			defer mu.Unlock()
			lent[id.IMPI]++
		}
		return err
	})
	if n := f.winners(errs, store.ErrExhausted); n != pool || len(lent) != pool {
		f.Errorf("%d of %d got one of %d: %v", n, borrowers, pool, lent)
	}
}
