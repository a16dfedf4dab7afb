package config

import (
	"net/url"

	"epcscf/cmd/internal/node"
	"epcscf/turncred/token"
)

// checkTokens reads the keys of tokens; fetched says that there are others.
func (f *File) checkTokens(fetched bool) {
	t := &f.node.TURN.Tokens
	switch {
	case t.ServerName == "" && (len(f.tokenKeys) > 0 || fetched):
		f.addAt("tokens.server_name", "is missing, and there are keys: write the name by which authorization servers make tokens for this relay, such as turn.ims.example")
	case t.ServerName != "" && len(f.tokenKeys) == 0 && f.store.Kind == node.StoreMemory && !fetched:
		f.addAt("tokens.keys", "is missing: without a key no token can be read. Write an item with kid and file, such as - {kid: t1, file: secrets/t1.key}")
	}
	for _, k := range f.tokenKeys {
		s, err := node.ReadBase64Secret(f.path(k.file), k.algorithm.KeyLen())
		if err != nil {
			f.faults = append(f.faults, k.at.faultf("file: %v", err))
			continue
		}
		t.Keys = append(t.Keys, token.Key{
			ID: k.ID, Secret: s, Algorithm: k.algorithm, NotBefore: k.NotBefore, NotAfter: k.NotAfter, Foreign: k.foreign,
		})
	}
}

// checkTokenKeysURL is where a relay fetches keys.
func (f *File) checkTokenKeysURL() {
	n := &f.relayNode
	if n.TokenKeys == "" {
		return
	}
	if u, err := url.Parse(n.TokenKeys); err != nil || u.Scheme != "https" || u.Host == "" || n.TokenKeys != "https://"+u.Host {
		f.addAt("tokens.keys_url", "%q: want https://HOST:PORT, the WAF's waf.interface.listen, and no path", n.TokenKeys)
	}
}
