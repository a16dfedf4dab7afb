package node

import (
	"slices"
	"time"

	"epcscf/store"
	"epcscf/turncred"
	"epcscf/turncred/token"
)

// over is a NotAfter of keys that nobody signs with, though what they signed counts.
var over = time.Unix(1, 0)

// RetireFor is how long a retired key is known on: until the last credential that was made
// with it has expired, wherever a change was heard a minute late.
func RetireFor(maxTTL time.Duration) time.Duration { return maxTTL + turncred.ClockSkew + time.Minute }

// known reports whether what a key of the ring signed counts at now.
func known(k store.Key, now time.Time) bool {
	return k.State != store.KeyRevoked && (k.State != store.KeyRetired || k.NotAfter.IsZero() || now.Before(k.NotAfter))
}

// sharedKeys makes one list of the file's keys and those of the store's ring: where a kid is
// in both the store's counts. The one to sign with comes first: of the candidates the first
// that every relay has, or else the first that some relay has. The candidates are those that
// are current in the ring, the youngest first; then those that were until a moment ago, if a
// credential expires before they are forgotten; then those of the file. Without a ring the
// file's keys are as they are.
func sharedKeys(file []turncred.Key, ring []store.Key, maxTTL time.Duration, now time.Time, has func(turncred.KeyID) (every, some bool)) []turncred.Key {
	if !slices.ContainsFunc(ring, func(k store.Key) bool { return k.Kind == store.KeyShared }) {
		return file
	}
	var all, current, retired, filed []turncred.Key
	inRing := map[turncred.KeyID]bool{}
	for _, k := range ring {
		if k.Kind != store.KeyShared {
			continue
		}
		inRing[k.ID] = true
		if !known(k, now) {
			continue
		}
		key := turncred.Key{ID: k.ID, Secret: k.Secret, NotBefore: k.NotBefore, NotAfter: k.NotAfter}
		all = append(all, key)
		switch {
		case now.Before(k.NotBefore):
		case k.State == store.KeyCurrent && (k.NotAfter.IsZero() || now.Before(k.NotAfter)):
			current = append(current, key)
		case k.State == store.KeyRetired && now.Add(maxTTL+turncred.ClockSkew).Before(k.NotAfter):
			retired = append(retired, key)
		}
	}
	for _, k := range file {
		if inRing[k.ID] {
			continue
		}
		all = append(all, k)
		if !now.Before(k.NotBefore) && (k.NotAfter.IsZero() || now.Before(k.NotAfter)) {
			filed = append(filed, k)
		}
	}
	younger := func(a, b turncred.Key) int { return b.NotBefore.Compare(a.NotBefore) }
	for _, keys := range [][]turncred.Key{current, retired, filed} {
		slices.SortStableFunc(keys, younger)
	}
	signing := chosenKey(slices.Concat(current, retired, filed), has)
	for i := range all {
		if all[i].ID == signing {
			all[i].NotBefore, all[i].NotAfter = time.Time{}, time.Time{}
			all[0], all[i] = all[i], all[0]
		} else {
			all[i].NotAfter = over
		}
	}
	return all
}

func chosenKey(candidates []turncred.Key, has func(turncred.KeyID) (every, some bool)) turncred.KeyID {
	var second turncred.KeyID
	for _, k := range candidates {
		every, some := has(k.ID)
		if every {
			return k.ID
		}
		if some && second == "" {
			second = k.ID
		}
	}
	if second == "" && len(candidates) > 0 {
		second = candidates[0].ID
	}
	return second
}

// tokenKeys is sharedKeys for access tokens. Where the ring has a key to make tokens with,
// those of the file are for tokens that were made before, and for others' tokens.
func tokenKeys(file []token.Key, ring []store.Key, now time.Time) []token.Key {
	var all []token.Key
	inRing := map[turncred.KeyID]bool{}
	making := false
	for _, k := range ring {
		if k.Kind != store.KeyToken {
			continue
		}
		inRing[k.ID] = true
		if !known(k, now) {
			continue
		}
		key := token.Key{ID: k.ID, Secret: k.Secret, Algorithm: token.Algorithm(k.Algorithm), NotBefore: k.NotBefore, NotAfter: k.NotAfter}
		if k.State == store.KeyCurrent {
			making = true
		} else {
			key.NotAfter = over
		}
		all = append(all, key)
	}
	for _, k := range file {
		if inRing[k.ID] {
			continue
		}
		if making && !k.Foreign {
			k.NotAfter = over
		}
		all = append(all, k)
	}
	return all
}
