package main

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"epcscf/cmd/internal/config"
	"epcscf/cmd/internal/node"
	"epcscf/store"
	"epcscf/turncred"
	"epcscf/turncred/token"
	"epcscf/waf"
)

// keysFlags are the flags of epcscf keys.
type keysFlags struct {
	file string
	kind string
	kid  string
	from string
	wait time.Duration
}

func newKeysCommand() *cobra.Command {
	var f keysFlags
	c := &cobra.Command{
		Use:   "keys",
		Short: "List, rotate and revoke the keys that credentials and tokens are made with",
		Long: `List and change the key ring in the store of the configuration. Edges and relays that share
a postgres store take a change within a second or two, without a restart. A bolt store is one
process's: stop it for the while.

A key is next (on its way to every relay), then current (credentials are made with it), then
retired (what was made with it lives on), or revoked (nothing that was made with it is good).
Secrets are never printed.

The kinds are shared-key (turn.approach shared-key), token (access tokens, RFC 7635), jwt (the
WAF's signing keys) and kek (what the store is encrypted with; its keys stand in files).`,
		Args: noArgs,
		RunE: func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	c.PersistentFlags().StringVarP(&f.file, "config", "c", defaultConfig, "configuration file")
	c.PersistentFlags().StringVar(&f.kind, "kind", string(store.KeyShared), "shared-key, token, kek or jwt")

	list := &cobra.Command{Use: "list", Short: "List the keys and their states", Args: noArgs,
		RunE: func(c *cobra.Command, _ []string) error { return f.with(c, listKeys) }}
	add := &cobra.Command{Use: "add", Short: "Make a key, which is next", Args: noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			return f.with(c, func(k *keyWork) error { _, err := k.add(); return err })
		}}
	add.Flags().StringVar(&f.kid, "kid", "", "its name, up to 16 letters and digits; default: one of today's date")
	add.Flags().StringVar(&f.from, "from", "", "take the secret from a file of mode 0600, as keys and tokens.keys have it; default: a random one")
	rotate := &cobra.Command{Use: "rotate", Short: "Make the next key current, when every relay has it, and retire the one before", Args: noArgs,
		RunE: func(c *cobra.Command, _ []string) error { return f.with(c, (*keyWork).rotate) }}
	rotate.Flags().DurationVar(&f.wait, "wait", time.Minute, "how long to wait for the relays")
	c.AddCommand(list, add, rotate,
		&cobra.Command{Use: "retire KID", Short: "Make no more credentials with a key; those that were made live on", Args: oneKey,
			RunE: func(c *cobra.Command, args []string) error {
				return f.with(c, func(k *keyWork) error { return k.retire(turncred.KeyID(args[0])) })
			}},
		&cobra.Command{Use: "revoke KID", Short: "End all that was made with a key, at once", Args: oneKey,
			RunE: func(c *cobra.Command, args []string) error {
				return f.with(c, func(k *keyWork) error { return k.revoke(turncred.KeyID(args[0])) })
			}})
	return c
}

func oneKey(c *cobra.Command, args []string) error {
	if len(args) == 1 {
		if _, err := turncred.ParseKeyID(args[0]); err == nil {
			return nil
		}
	}
	return usageError{fmt.Errorf("want the name of one key: see %s --help", c.CommandPath())}
}

// keyWork is a key ring that a command works on.
type keyWork struct {
	keysFlags
	kind   store.KeyKind
	cfg    *config.File
	store  store.Store
	ctx    context.Context //nolint:containedctx // that of the command
	print  func(format string, a ...any)
	cobra  *cobra.Command
	maxTTL time.Duration
}

// with opens the store for a command.
func (f keysFlags) with(c *cobra.Command, do func(*keyWork) error) error {
	kind := store.KeyKind(f.kind)
	if !slices.Contains([]store.KeyKind{store.KeyShared, store.KeyToken, store.KeyKEK, store.KeyJWT}, kind) {
		return usageError{fmt.Errorf("--kind %q: want shared-key, token, kek or jwt", f.kind)}
	}
	if kind == store.KeyKEK && !slices.Contains([]string{"list", "rotate"}, c.Name()) {
		return usageError{errors.New("a key-encryption key is made by hand, since the store must not hold it: write the new one to store.kek_file, give it another store.kek_id, list the one before in store.older_keks, do that at every node, and run  epcscf keys rotate --kind kek")}
	}
	cfg, err := config.Load(f.file, "")
	if err != nil {
		return usageError{err}
	}
	if kind == store.KeyToken && c.Name() != "list" && cfg.Node().TURN.Tokens.ServerName == "" {
		return usageError{fmt.Errorf("%s: tokens.server_name is not set, so no relay takes tokens and no key of theirs", f.file)}
	}
	err = withStore(c, f.file, func(ctx context.Context, s store.Store) error {
		w := &keyWork{keysFlags: f, kind: kind, cfg: cfg, store: s, ctx: ctx, cobra: c, maxTTL: life(cfg, kind)}
		w.print = func(format string, a ...any) { _, _ = fmt.Fprintf(c.OutOrStdout(), format+"\n", a...) }
		return do(w)
	})
	if errors.Is(err, store.ErrLocked) {
		return fmt.Errorf("%w; keys in a bolt store are listed and changed while epcscf serve is stopped, or stand in files, which SIGHUP reads", err)
	}
	return err
}

// life is how long what is made with a key of a kind may live.
func life(cfg *config.File, kind store.KeyKind) time.Duration {
	n := cfg.Node()
	switch {
	case kind == store.KeyToken:
		return max(n.TURN.MaxTTL, n.TURN.Tokens.MaxLifetime)
	case kind == store.KeyJWT && n.WAF != nil:
		return n.WAF.Settings.Registration.Life
	}
	return n.TURN.MaxTTL
}

// record adds to the audit trail what was done to a key.
func (k *keyWork) record(action string, kid turncred.KeyID) error {
	return record(k.ctx, k.store, "key."+action, string(k.kind)+"/"+string(kid))
}

// keys are those of the kind, by id.
func (k *keyWork) keys() ([]store.Key, error) { return k.store.Keys(k.ctx, k.kind) }

// inState are those of the kind in a state, the oldest first.
func (k *keyWork) inState(s store.KeyState) ([]store.Key, error) {
	all, err := k.keys()
	all = slices.DeleteFunc(all, func(o store.Key) bool { return o.State != s })
	slices.SortStableFunc(all, func(a, b store.Key) int { return a.Created.Compare(b.Created) })
	return all, err
}

// filed are the keys of the kind that stand in files.
func (k *keyWork) filed() map[turncred.KeyID]store.Key {
	t := k.cfg.Node().TURN
	all := map[turncred.KeyID]store.Key{}
	switch k.kind {
	case store.KeyShared:
		for _, o := range t.Keys {
			all[o.ID] = store.Key{Kind: k.kind, ID: o.ID, Secret: o.Secret, NotBefore: o.NotBefore, NotAfter: o.NotAfter}
		}
	case store.KeyToken:
		for _, o := range t.Tokens.Keys {
			all[o.ID] = store.Key{Kind: k.kind, ID: o.ID, Secret: o.Secret, Algorithm: string(o.Algorithm), NotBefore: o.NotBefore, NotAfter: o.NotAfter}
		}
	}
	return all
}

func listKeys(k *keyWork) error {
	if k.kind == store.KeyKEK {
		return listKEKs(k)
	}
	keys, err := k.keys()
	if err != nil {
		return err
	}
	for _, o := range k.filed() {
		if !slices.ContainsFunc(keys, func(s store.Key) bool { return s.ID == o.ID }) {
			o.State = "in a file"
			keys = append(keys, o)
		}
	}
	slices.SortStableFunc(keys, func(a, b store.Key) int { return strings.Compare(string(a.ID), string(b.ID)) })
	return table(k.cobra.OutOrStdout(), "KIND\tKID\tSTATE\tMADE\tFROM\tUNTIL", keys, func(o store.Key) []any {
		return []any{o.Kind, o.ID, o.State, stamp(o.Created), stamp(o.NotBefore), stamp(o.NotAfter)}
	})
}

func stamp(t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return t.UTC().Format(time.RFC3339)
}

func listKEKs(k *keyWork) error {
	at := k.cfg.Store()
	type kek struct {
		id    turncred.KeyID
		state string
	}
	all := []kek{{at.KEK.ID, "current"}}
	for _, o := range at.OlderKEKs {
		all = append(all, kek{o.ID, "older"})
	}
	return table(k.cobra.OutOrStdout(), "KIND\tKID\tSTATE", all, func(o kek) []any { return []any{store.KeyKEK, o.id, o.state} })
}

// add makes a key, which is next.
func (k *keyWork) add() (store.Key, error) {
	all, err := k.store.Keys(k.ctx, "")
	if err != nil {
		return store.Key{}, err
	}
	taken := func(kid turncred.KeyID) bool {
		n := k.cfg.Node().TURN
		return slices.ContainsFunc(all, func(o store.Key) bool { return o.ID == kid }) ||
			slices.ContainsFunc(n.Keys, func(o turncred.Key) bool { return o.ID == kid }) ||
			slices.ContainsFunc(n.Tokens.Keys, func(o token.Key) bool { return o.ID == kid })
	}
	key, err := k.newKey()
	if err != nil {
		return key, err
	}
	if key.ID = turncred.KeyID(k.kid); k.kid == "" {
		key.ID = newKeyID(k.kind, time.Now(), taken)
	}
	if _, err := turncred.ParseKeyID(string(key.ID)); err != nil {
		return key, usageError{fmt.Errorf("--kid: want 1 to 16 letters and digits, such as k2, got %q", key.ID)}
	}
	// A name is never used again: a revocation may be on its way, and relays name their keys
	// without a kind.
	if taken(key.ID) {
		return key, usageError{fmt.Errorf("--kid: there is a key %s: give another name", key.ID)}
	}
	if err := k.store.AddKey(k.ctx, key); err != nil {
		return key, err
	}
	k.print("%s %s is made, and next", k.kind, key.ID)
	return key, k.record("add", key.ID)
}

// newKey makes a key without a name.
func (k *keyWork) newKey() (store.Key, error) {
	if k.kind == store.KeyJWT {
		if k.from != "" {
			return store.Key{}, usageError{errors.New("--from: a key of kind jwt is always made here")}
		}
		return waf.NewSigningKey("EdDSA")
	}
	key := store.Key{Kind: k.kind, State: store.KeyNext}
	var random [32]byte
	if _, err := rand.Read(random[:]); err != nil {
		return key, err
	}
	key.Secret = turncred.NewSecret([]byte(hex.EncodeToString(random[:]))) // coturn takes text only
	var err error
	if k.kind == store.KeyToken {
		key.Algorithm, key.Secret = string(token.A256GCM), turncred.NewSecret(random[:])
		if k.from != "" {
			key.Secret, err = node.ReadBase64Secret(k.from, token.A256GCM.KeyLen())
		}
	} else if k.from != "" {
		key.Secret, err = node.ReadSecret(k.from)
	}
	if err != nil {
		err = usageError{fmt.Errorf("--from: %w", err)}
	}
	return key, err
}

// newKeyID names a key by its day, so that no name comes twice.
func newKeyID(kind store.KeyKind, now time.Time, taken func(turncred.KeyID) bool) turncred.KeyID {
	day := string(kind[0]) + now.UTC().Format("060102")
	for last := 'a'; last <= 'z'; last++ {
		if id := turncred.KeyID(day + string(last)); !taken(id) {
			return id
		}
	}
	return turncred.KeyID(day + strings.ToLower(rand.Text()[:8]))
}
