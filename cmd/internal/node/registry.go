package node

import (
	"context"
	"errors"
	"maps"
	"slices"
	"time"

	"epcscf/store"
	"epcscf/turncred/push"
)

// applyRelaysLocked brings the fleet to the registry's relays, beside those of the file,
// which are left alone.
func (r *ringSide) applyRelaysLocked(ctx context.Context) {
	if !r.cfg.Registry || r.turn.fleet == nil {
		return
	}
	want := map[string]store.Relay{}
	for _, rel := range r.state.relays {
		if !slices.Contains(r.turn.listed, rel.Name) {
			want[rel.Name] = rel
		}
	}
	for name, has := range maps.All(r.members) {
		if rel, ok := want[name]; !ok || !samePlace(rel, has) {
			r.turn.fleet.Remove(name)
			delete(r.members, name)
			r.log.Info("a relay has left the registry, or moved", "relay", name)
		}
	}
	for name, rel := range want {
		if _, ok := r.members[name]; !ok {
			err := r.turn.fleet.Add(ctx, push.RelayConfig{Name: name, Address: rel.Address, URIs: rel.URIs, Weight: weightOf(rel), Region: rel.Region})
			if err != nil {
				r.log.Error("a relay of the registry is not taken", "relay", name, "err", err)
				continue
			}
			r.log.Info("a relay of the registry is taken", "relay", name, "address", rel.Address, "state", rel.State)
		}
		r.turn.fleet.SetWeight(name, weightOf(rel))
		r.members[name] = rel
	}
}

func samePlace(a, b store.Relay) bool {
	return a.Address == b.Address && a.Region == b.Region && slices.Equal(a.URIs, b.URIs)
}

func weightOf(r store.Relay) int {
	if r.State == store.RelayDraining {
		return 0
	}
	return r.Weight
}

// see tells the registry every few seconds that this relay is there, and which keys it has.
func (r *ringSide) see(ctx context.Context, s store.Store) {
	for ctx.Err() == nil {
		pause(ctx, seeEvery)
		r.seeOnce(ctx, s)
	}
}

func (r *ringSide) seeOnce(ctx context.Context, s store.Store) {
	ctx, cancel := context.WithTimeout(ctx, ringTimeout)
	defer cancel()
	err := s.SeeRelay(ctx, r.relay, r.turn.keyIDs(), time.Now())
	if err != nil && ctx.Err() == nil && !errors.Is(err, store.ErrNotFound) { // it may be in the edges' files instead
		r.log.Warn("the registry does not hear of this relay", "err", err)
	}
}
