package node

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"epcscf/store"
	"epcscf/turncred"
	"epcscf/turncred/token"
	"epcscf/waf/stunkey"
)

// newTokenKeys is how a relay gets the keys of tokens from a WAF on another host. Those that
// it had before a restart are taken at once. It returns nil where none are fetched.
func newTokenKeys(cfg RelayConfig, to *tokenSide, log *slog.Logger) (*stunkey.Client, error) {
	if cfg.TokenKeys == "" || to == nil {
		return nil, nil
	}
	keks, err := stateKEKs(cfg.TURN.Deployment, "token keys")
	if err != nil {
		return nil, err
	}
	f := keptKeys{file: filepath.Join(cfg.Interface.StateDir, "token-keys"), keks: keks}
	known, err := f.read()
	if err != nil {
		log.Warn("the token keys of the last life are not read: they are fetched anew", "err", err)
	}
	if err := to.useFetched(known); err != nil {
		return nil, err
	}
	return stunkey.NewClient(stunkey.ClientConfig{
		URL: cfg.TokenKeys, Name: to.ServerName(), Domain: cfg.Interface.Domain, Keys: interfaceKeys{&cfg.Interface},
		MaxLifetime: cfg.TURN.Tokens.MaxLifetime, Known: known, Logger: log,
		Use: func(keys []token.Key) error {
			if err := to.useFetched(keys); err != nil {
				return err
			}
			log.Info("token keys fetched", "count", len(keys))
			if err := f.write(keys); err != nil {
				log.Error("the token keys would not outlive a restart", "err", err)
			}
			return nil
		},
	})
}

// keptKeys is a file with fetched keys, sealed under a key made of the deployment secret.
type keptKeys struct {
	file string
	keks *store.KEKs
}

// keptKey is a key in the file.
type keptKey struct {
	ID        turncred.KeyID  `json:"kid"`
	K         []byte          `json:"k"`
	Algorithm token.Algorithm `json:"enc"`
	NotAfter  time.Time       `json:"exp"`
}

// keptID is the row that the file counts as.
const keptID = "fetched"

// read returns nil where there is no file.
func (f keptKeys) read() (keys []token.Key, err error) {
	box, err := os.ReadFile(f.file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	data, err := f.keks.Open(store.TableKeys, keptID, nil, store.Sealed{KEK: f.keks.Current(), Box: box})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", f.file, err)
	}
	var all []keptKey
	if err := json.Unmarshal(data, &all); err != nil {
		return nil, fmt.Errorf("%s: no list of keys", f.file) // the decoder's text may quote one
	}
	for _, k := range all {
		keys = append(keys, token.Key{ID: k.ID, Secret: turncred.NewSecret(k.K), Algorithm: k.Algorithm, NotAfter: k.NotAfter})
	}
	return keys, nil
}

func (f keptKeys) write(keys []token.Key) error {
	var all []keptKey
	for _, k := range keys {
		all = append(all, keptKey{k.ID, k.Secret.Reveal(), k.Algorithm, k.NotAfter})
	}
	data, err := json.Marshal(all)
	if err != nil {
		return err
	}
	sealed, err := f.keks.Seal(store.TableKeys, keptID, nil, data)
	if err != nil {
		return err
	}
	return ReplaceFile(f.file, sealed.Box)
}
