package node

import (
	"fmt"
	"log/slog"
	"slices"

	"epcscf/store/coturn"
	"epcscf/turncred"
	"epcscf/turncred/push"
)

// FleetRelay is a relay in another process: one of ours or, with Coturn, a coturn.
type FleetRelay struct {
	push.RelayConfig
	Coturn *Coturn
}

// Coturn is where a coturn that serves as a relay is told of credentials.
type Coturn struct {
	DatabaseURL turncred.Secret // empty: approach 1 alone
	Admin       *coturn.Admin   // nil: live sessions go on
}

// ours reports whether any relay of the fleet speaks the credential interface.
func (f *Fleet) ours() bool {
	return f.Registry || slices.ContainsFunc(f.Relays, func(r FleetRelay) bool { return r.Coturn == nil })
}

// newCoturns makes what speaks with each coturn, and says what no coturn can do.
func newCoturns(f *Fleet, realm turncred.Realm, codec *turncred.TidCodec, log *slog.Logger) ([]push.RelayConfig, []*coturn.Relay, error) {
	var all []push.RelayConfig
	var foreign []*coturn.Relay
	for _, r := range f.Relays {
		if r.Coturn != nil {
			c, err := coturn.New(coturn.Config{DatabaseURL: r.Coturn.DatabaseURL, Admin: r.Coturn.Admin, Realm: realm, Codec: codec})
			if err != nil {
				return nil, nil, fmt.Errorf("relay %s: %w", r.Name, err)
			}
			r.Foreign, foreign = c, append(foreign, c)
			warnOfCoturn(r, log)
		}
		all = append(all, r.RelayConfig)
	}
	return all, foreign, nil
}

func warnOfCoturn(r FleetRelay, log *slog.Logger) {
	log.Warn("a coturn keeps a session past its credential's expiry for as long as the client refreshes it, and knows no quota of a user", "relay", r.Name)
	if r.Coturn.Admin == nil {
		log.Warn("no admin interface is given for a coturn: a revocation ends no live session there", "relay", r.Name)
	}
	if r.Coturn.DatabaseURL.Len() == 0 {
		log.Warn("no database is given for a coturn: a credential is good there until it expires, whatever is revoked, and keys are changed in its own configuration", "relay", r.Name)
	}
}
