package main

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"epcscf/cmd/internal/node"
	"epcscf/store"
	"epcscf/turncred"
	"epcscf/turncred/push"
)

// rotate makes the next key current: a new one, where there is none.
func (k *keyWork) rotate() error {
	if k.kind == store.KeyKEK {
		return k.reseal()
	}
	next, err := k.next()
	if err != nil {
		return err
	}
	if err := k.everywhere(next.ID); err != nil {
		return err
	}
	return errors.Join(k.makeCurrent(next), k.forget())
}

// next returns the oldest key that is next; where there is none, a new one.
func (k *keyWork) next() (store.Key, error) {
	waiting, err := k.inState(store.KeyNext)
	switch {
	case err != nil:
		return store.Key{}, err
	case len(waiting) > 0:
		return waiting[0], nil
	}
	return k.add()
}

// makeCurrent begins to sign with a key, then ends it with those before: there is always one.
func (k *keyWork) makeCurrent(next store.Key) error {
	before, err := k.inState(store.KeyCurrent)
	if err != nil {
		return err
	}
	next.State, next.NotBefore, next.NotAfter = store.KeyCurrent, time.Now(), time.Time{}
	if err := k.store.SetKey(k.ctx, store.KeyNext, next); err != nil {
		return err
	}
	if err := k.record("rotate", next.ID); err != nil {
		return err
	}
	k.print("%s %s is current", k.kind, next.ID)
	for _, o := range before {
		if err := k.retireKey(o); err != nil {
			return err
		}
	}
	for kid := range k.filed() {
		if keys, err := k.keys(); err == nil && !slices.ContainsFunc(keys, func(o store.Key) bool { return o.ID == kid }) {
			k.print("%s %s stands in a file: take it out after %s", k.kind, kid, stamp(time.Now().Add(node.RetireFor(k.maxTTL))))
		}
	}
	return nil
}

func (k *keyWork) retireKey(o store.Key) error {
	from := o.State
	o.State, o.NotAfter = store.KeyRetired, time.Now().Add(node.RetireFor(k.maxTTL))
	if err := k.store.SetKey(k.ctx, from, o); err != nil {
		return err
	}
	k.print("%s %s is retired: what was made with it lives on until %s", k.kind, o.ID, stamp(o.NotAfter))
	return k.record("retire", o.ID)
}

// keepForgotten is how long a key that no longer counts is listed.
const keepForgotten = 30 * 24 * time.Hour

// forget deletes keys that have not counted for a month.
func (k *keyWork) forget() error {
	keys, err := k.keys()
	if err != nil {
		return err
	}
	for _, o := range keys {
		if o.State != store.KeyRetired && o.State != store.KeyRevoked || o.NotAfter.IsZero() || time.Since(o.NotAfter) < keepForgotten {
			continue
		}
		if err := k.store.DeleteKey(k.ctx, o.Kind, o.ID); err != nil {
			return err
		}
		if err := k.record("delete", o.ID); err != nil {
			return err
		}
	}
	return nil
}

func (k *keyWork) find(kid turncred.KeyID) (store.Key, error) {
	keys, err := k.keys()
	if err != nil {
		return store.Key{}, err
	}
	i := slices.IndexFunc(keys, func(o store.Key) bool { return o.ID == kid })
	if i < 0 {
		return store.Key{}, fmt.Errorf("%s %s: %w in the store: see  epcscf keys list --kind %s", k.kind, kid, store.ErrNotFound, k.kind)
	}
	return keys[i], nil
}

func (k *keyWork) retire(kid turncred.KeyID) error {
	o, err := k.find(kid)
	if err != nil {
		return err
	}
	current, err := k.inState(store.KeyCurrent)
	switch {
	case err != nil:
		return err
	case o.State == store.KeyRetired || o.State == store.KeyRevoked:
		return fmt.Errorf("%s %s is %s already", k.kind, kid, o.State)
	case o.State == store.KeyCurrent && len(current) == 1:
		return fmt.Errorf("%s %s is the only one that is current: epcscf keys rotate --kind %s makes another, and retires it", k.kind, kid, k.kind)
	}
	return k.retireKey(o)
}

// revoke ends a key. Where it was the only current one another takes its place at once: a
// relay that lacks that is not offered until it has it.
func (k *keyWork) revoke(kid turncred.KeyID) error {
	o, err := k.find(kid)
	if filed, ok := k.filed()[kid]; errors.Is(err, store.ErrNotFound) && ok {
		o, err = filed, nil // the store says from now on that it is no good
		o.State = store.KeyRetired
		if err := k.store.AddKey(k.ctx, o); err != nil {
			return err
		}
	}
	if err != nil {
		return err
	}
	if o.State == store.KeyRevoked {
		return fmt.Errorf("%s %s is revoked already", k.kind, kid)
	}
	from := o.State
	o.State, o.NotAfter = store.KeyRevoked, time.Now().Add(k.maxTTL+turncred.ClockSkew)
	if err := k.store.SetKey(k.ctx, from, o); err != nil {
		return err
	}
	k.print("%s %s is revoked", k.kind, kid)
	if err := k.record("revoke", kid); err != nil {
		return err
	}
	current, err := k.inState(store.KeyCurrent)
	if err != nil || len(current) > 0 {
		return err
	}
	next, err := k.next()
	if err != nil {
		return err
	}
	return k.makeCurrent(next)
}

// everywhere waits until every relay that gets users has a key.
func (k *keyWork) everywhere(kid turncred.KeyID) error {
	if k.kind == store.KeyJWT {
		return k.published()
	}
	fleet := k.cfg.Node().Fleet
	if fleet == nil {
		return nil
	}
	deadline := time.Now().Add(k.wait)
	for told := ""; ; k.pause(askEvery) {
		lacking, err := k.lacking(fleet, kid)
		switch {
		case err != nil:
			return err
		case len(lacking) == 0:
			return k.ctx.Err()
		case !time.Now().Before(deadline):
			return fmt.Errorf("%s %s stays next: after %v not every relay has it: %s. A relay takes keys from the store that its file names as store; drain one that cannot (epcscf relays drain, or weight: 0), and run this again", k.kind, kid, k.wait, strings.Join(lacking, "; "))
		}
		if now := strings.Join(lacking, "; "); now != told {
			told = now
			k.print("waiting for %s", now)
		}
		if k.ctx.Err() != nil {
			return k.ctx.Err()
		}
	}
}

// published waits until each WAF publishes a key of which it has heard; verifiers ask for a
// kid that they do not know. The first key ever is waited for by nobody.
func (k *keyWork) published() error {
	current, err := k.inState(store.KeyCurrent)
	if err == nil && len(current) > 0 {
		k.pause(publishFor)
		err = k.ctx.Err()
	}
	return err
}

const (
	askEvery   = 250 * time.Millisecond
	publishFor = 3 * time.Second // two looks of a WAF at its store
)

func (k *keyWork) pause(d time.Duration) {
	select {
	case <-k.ctx.Done():
	case <-time.After(d):
	}
}

// lacking says which relays that get users lack a key, and why.
func (k *keyWork) lacking(fleet *node.Fleet, kid turncred.KeyID) (lacking []string, err error) {
	var all []push.RelayConfig
	for _, r := range fleet.Relays {
		if r.Coturn == nil && r.Weight > 0 { // a coturn gets keys from the edges, each before it signs
			all = append(all, r.RelayConfig)
		}
	}
	if fleet.Registry {
		registered, err := k.store.Relays(k.ctx)
		if err != nil {
			return nil, err
		}
		for _, r := range registered {
			listed := slices.ContainsFunc(all, func(o push.RelayConfig) bool { return o.Name == r.Name })
			if r.State == store.RelayActive && r.Weight > 0 && !listed {
				all = append(all, push.RelayConfig{Name: r.Name, Address: r.Address})
			}
		}
	}
	for _, r := range all {
		keys, draining, err := fleet.KeysAt(k.ctx, r)
		switch {
		case err != nil:
			lacking = append(lacking, fmt.Sprintf("relay %s (%s) does not answer: %v", r.Name, r.Address, err))
		case !draining && !slices.Contains(keys, kid):
			lacking = append(lacking, fmt.Sprintf("relay %s (%s) does not have %s", r.Name, r.Address, kid))
		}
	}
	return lacking, nil
}

// resealAtOnce is how many rows move in a transaction.
const resealAtOnce = 1000

// reseal moves what is sealed under an older key-encryption key to the current one.
func (k *keyWork) reseal() error {
	at := k.cfg.Store()
	if len(at.OlderKEKs) == 0 {
		k.print("store.older_keks is empty: everything is under %s", at.KEK.ID)
		return nil
	}
	total := 0
	for {
		n, err := k.store.Reseal(k.ctx, resealAtOnce)
		if err != nil {
			return err
		}
		if total += n; n == 0 {
			break
		}
		k.print("%d rows are under %s now", total, at.KEK.ID)
	}
	k.print("everything is under %s: take store.older_keks out of every node's file", at.KEK.ID)
	return k.record("rotate", at.KEK.ID)
}
