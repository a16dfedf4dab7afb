package push

import (
	"crypto/sha256"
	"encoding/binary"
	"math"
	"slices"

	"epcscf/turncred"
)

// score is a relay's in weighted rendezvous hashing: each subject has an order of relays of
// its own, each relay gets its weight's share of subjects, and a relay that comes or goes
// moves no subject between the others.
func score(s turncred.Subject, relay string, weight int) float64 {
	h := sha256.Sum256(append(binary.BigEndian.AppendUint64(nil, uint64(s)), relay...))
	// 53 bits make a float64 between 0 and 1, and neither of them.
	u := (float64(binary.BigEndian.Uint64(h[:8])>>11) + 0.5) / (1 << 53)
	return -float64(weight) / math.Log(u)
}

// rank orders the relays that may get a subject's credentials: those that answer before
// those that do not, those of our region before others, and then by score. Drained ones get
// nobody new. Where kid is not "" a relay that is known to lack that key is out.
func (f *Fleet) rank(s turncred.Subject, kid turncred.KeyID) []*member {
	type ranked struct {
		*member
		up, near bool
		score    float64
	}
	var all []ranked
	for _, m := range *f.members.Load() {
		up, st := m.health()
		weight := int(m.weight.Load())
		if weight == 0 || st.Draining || kid != "" && up && !slices.Contains(st.Keys, kid) {
			continue
		}
		all = append(all, ranked{m, up, f.cfg.Region == "" || m.Region == f.cfg.Region, score(s, m.Name, weight)})
	}
	slices.SortFunc(all, func(a, b ranked) int {
		switch {
		case a.up != b.up:
			return before(a.up)
		case a.near != b.near:
			return before(a.near)
		case a.score != b.score:
			return before(a.score > b.score)
		}
		return 0
	})
	ms := make([]*member, len(all))
	for i, r := range all {
		ms[i] = r.member
	}
	return ms
}

func before(yes bool) int {
	if yes {
		return -1
	}
	return 1
}

// URIs returns where a WIC finds the relays for a subject whose credential was made with
// the key kid of approach 1, which needs no write: the one that Place would ask first, and
// the spare ones. Where no relay answers they are those of the first that would.
func (f *Fleet) URIs(s turncred.Subject, kid turncred.KeyID) (uris []string) {
	for i, m := range f.rank(s, kid) {
		if up, _ := m.health(); i > f.cfg.Spare || i > 0 && !up {
			break
		}
		uris = append(uris, m.URIs...)
	}
	return uris
}
