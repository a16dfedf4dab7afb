package config

import (
	"path/filepath"
	"strings"

	"epcscf/cmd/internal/node"
	"epcscf/store"
	"epcscf/turncred"
)

// storeFiles are what store names.
type storeFiles struct {
	file, databaseURL, kek string
	kekID                  turncred.KeyID
	older                  []olderKEK
}

// olderKEK is a key-encryption key that rows may still be under.
type olderKEK struct {
	id   turncred.KeyID
	file string
}

// Store is where the file says that records are kept.
func (f *File) Store() node.Store { return f.store }

// keyID reads the name of a key.
func keyID(to func(*File) *turncred.KeyID) setter {
	return func(f *File, v value) error {
		s, err := v.text("a key's name")
		if err != nil {
			return err
		}
		id, err := turncred.ParseKeyID(s)
		if err != nil {
			return v.want("a key's name of up to 16 letters and digits")
		}
		*to(f) = id
		return nil
	}
}

// parseOlderKEK reads ID:FILE.
func parseOlderKEK(v value) (olderKEK, error) {
	const what = "ID:FILE"
	s, err := v.text(what)
	if err != nil {
		return olderKEK{}, err
	}
	id, file, ok := strings.Cut(s, ":")
	kid, err := turncred.ParseKeyID(id)
	if !ok || err != nil || file == "" {
		return olderKEK{}, v.faultf("want %s, such as kek1:secrets/kek1.key, got %s", what, v.describe())
	}
	return olderKEK{kid, file}, nil
}

// checkStore reads what the kind of store needs.
func (f *File) checkStore() {
	s, files := &f.store, &f.storeFiles
	if s.Kind == node.StoreMemory {
		return
	}
	s.File = f.path(files.file)
	if files.kek == "" {
		f.addAt("store.kek_file", "is missing, and store.kind is %s: what is secret is encrypted there. Make a key: openssl rand -hex 32, and keep a copy of it, without which a backup is of no use", s.Kind)
		return
	}
	s.KEK = store.KEK{ID: files.kekID, Secret: f.secret("store.kek_file", files.kek)}
	for _, o := range files.older {
		if o.id == files.kekID {
			f.addAt("store.older_keks", "%s is the name of store.kek_file's key too: each key has a name of its own, as store.kek_id", o.id)
		}
		s.OlderKEKs = append(s.OlderKEKs, store.KEK{ID: o.id, Secret: f.secret("store.older_keks", o.file)})
	}
	if s.Kind != node.StorePostgres {
		return
	}
	if files.databaseURL == "" {
		f.addAt("store.database_url_file", "is missing, and store.kind is postgres: write a file of mode 0600 with the connection string in it")
		return
	}
	var err error
	if s.DatabaseURL, err = node.ReadDatabaseURL(f.path(files.databaseURL)); err == nil {
		err = node.CheckDatabaseURL(s.DatabaseURL, s.AllowInsecure)
	}
	if err != nil {
		f.addAt("store.database_url_file", "%v", err)
	}
	if s.AllowInsecure {
		f.note("store.allow_insecure is on: whoever is between this node and the database may read and write it")
	}
}

// ringCache is the file in a state directory that keeps what the store said last.
const ringCache = "ring.json"

// checkRing is what a process takes from the store.
func (f *File) checkRing() {
	if f.registry && f.store.Kind != node.StorePostgres {
		f.addAt("turn.registry", "is on, and store.kind is %s: the registry is in the database that edges and relays share, of kind postgres", f.store.Kind)
	}
	if f.store.Kind == node.StoreMemory {
		return
	}
	f.node.TURN.KeysLater = true
	f.node.Ring = &node.Ring{Store: f.store, CacheFile: filepath.Join(f.path(f.place.StateDir), ringCache), Registry: f.registry}
}

// checkRelayRing is checkRing for a relay by itself.
func (f *File) checkRelayRing() {
	n := &f.relayNode
	switch f.store.Kind {
	case node.StoreBolt:
		f.addAt("store.kind", "is bolt, a file that one process has: a relay by itself shares its store with the edges, so use postgres, or leave the section out")
	case node.StorePostgres:
		n.TURN.KeysLater = true
		n.Ring = &node.Ring{Store: f.store, CacheFile: filepath.Join(n.Interface.StateDir, ringCache)}
	}
}
