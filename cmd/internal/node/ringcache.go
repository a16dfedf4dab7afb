package node

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"epcscf/store"
	"epcscf/turncred"
)

// ringState is what a process knows of the store: the key ring and the registry of relays.
type ringState struct {
	keys   []store.Key
	relays []store.Relay
}

// ringCache keeps a ringState in a file, sealed as the store seals it, so that a process can
// start while the database is away.
type ringCache struct {
	file string
	keks *store.KEKs
}

// cachedKey is a key in the file.
type cachedKey struct {
	Kind      store.KeyKind
	ID        turncred.KeyID
	Algorithm string `json:",omitempty"`
	NotBefore time.Time
	NotAfter  time.Time
	State     store.KeyState
	KEK       turncred.KeyID
	Box       []byte
}

type cachedState struct {
	Keys   []cachedKey
	Relays []store.Relay
}

// openRingCache returns nil where the store is one that is never away.
func openRingCache(cfg *Ring) (*ringCache, error) {
	if cfg.Store.Kind != StorePostgres || cfg.CacheFile == "" {
		return nil, nil
	}
	keks, err := store.NewKEKs(cfg.Store.KEK, cfg.Store.OlderKEKs...)
	if err != nil {
		return nil, err
	}
	return &ringCache{cfg.CacheFile, keks}, nil
}

// load returns an empty state where there is no file yet.
func (c *ringCache) load() (s ringState, err error) {
	if c == nil {
		return s, nil
	}
	raw, err := os.ReadFile(c.file)
	if errors.Is(err, fs.ErrNotExist) {
		return s, nil
	}
	var in cachedState
	if err == nil {
		err = json.Unmarshal(raw, &in)
	}
	if err != nil {
		return s, fmt.Errorf("%s: %w", c.file, err)
	}
	s.relays = in.Relays
	for _, k := range in.Keys {
		key := store.Key{Kind: k.Kind, ID: k.ID, Algorithm: k.Algorithm, NotBefore: k.NotBefore, NotAfter: k.NotAfter, State: k.State}
		if err := c.keks.OpenKey(&key, store.Sealed{KEK: k.KEK, Box: k.Box}); err != nil {
			return ringState{}, fmt.Errorf("%s: %w", c.file, err)
		}
		s.keys = append(s.keys, key)
	}
	return s, nil
}

func (c *ringCache) save(s ringState) error {
	if c == nil {
		return nil
	}
	out := cachedState{Relays: s.relays}
	for _, k := range s.keys {
		sealed, err := c.keks.SealKey(k)
		if err != nil {
			return err
		}
		out.Keys = append(out.Keys, cachedKey{k.Kind, k.ID, k.Algorithm, k.NotBefore, k.NotAfter, k.State, sealed.KEK, sealed.Box})
	}
	raw, err := json.Marshal(out)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(c.file), 0o700); err != nil {
		return err
	}
	return writeFile(c.file, raw, 0o600)
}
