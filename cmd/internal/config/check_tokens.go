package config

import (
	"epcscf/cmd/internal/node"
	"epcscf/turncred/token"
)

// checkTokens reads the keys of tokens.
func (f *File) checkTokens() {
	t := &f.node.TURN.Tokens
	switch {
	case t.ServerName == "" && len(f.tokenKeys) > 0:
		f.addAt("tokens.server_name", "is missing, and there are keys: write the name by which authorization servers make tokens for this relay, such as turn.ims.example")
	case t.ServerName != "" && len(f.tokenKeys) == 0 && f.store.Kind == node.StoreMemory:
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
