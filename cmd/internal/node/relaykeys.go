package node

import (
	"context"
	"time"

	"epcscf/turncred"
	"epcscf/turncred/push"
)

// askTimeout bounds a question to a relay.
const askTimeout = 2 * time.Second

// KeysAt asks a relay, by our name and certificate, which keys it has, and whether it takes
// new users.
func (f *Fleet) KeysAt(ctx context.Context, r push.RelayConfig) (keys []turncred.KeyID, draining bool, err error) {
	// A question begins no life of an edge, so any epoch will do.
	c, err := push.NewClient(push.ClientConfig{Address: r.Address, ServerName: r.ServerName, Domain: f.Domain, Name: f.Name, Epoch: 1, Keys: interfaceKeys{&f.Interface}})
	if err != nil {
		return nil, false, err
	}
	defer c.Close()
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	s, err := c.Digest(ctx, time.Now())
	return s.Keys, s.Draining, err
}
