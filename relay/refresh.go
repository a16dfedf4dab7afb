package relay

import "github.com/pion/stun/v3"

// handleRefresh follows RFC 8656 §8.2.
func (w *worker) handleRefresh(r *request) *refusal {
	// "attribute value does not match the address family of the allocation": 443. Of a dual
	// allocation it may name either; both share one time-to-expiry.
	var only *leg
	if f, has := r.msg.Attributes.Get(stun.AttrRequestedAddressFamily); has {
		family, ok := firstByteOf(f.Value)
		if !ok {
			return refuse(stun.CodeBadRequest, "REQUESTED-ADDRESS-FAMILY is malformed")
		}
		if only = r.alloc.legOf(family); only == nil {
			return refuse(stun.CodePeerAddrFamilyMismatch, "allocation is of the other family")
		}
	}

	// "the attribute value is zero": the allocation is deleted.
	if v, err := r.msg.Get(stun.AttrLifetime); err == nil {
		if asked, ok := lifetimeOf(v); ok && asked == 0 {
			if only != nil {
				w.s.endLeg(r.alloc, only)
			} else {
				w.s.end(r.alloc, EndDeleted)
			}
			w.out.Add(stun.AttrLifetime, lifetimeValue(0))
			return nil
		}
	}

	// "the allocation's time-to-expiry is set to the desired lifetime", but never past
	// what its credential allows (Config.AfterExpiry).
	desired, no := lifetimeWanted(r.msg)
	if no != nil {
		return no
	}
	left, no := w.s.extend(r.alloc, &r.holder, r.now, desired)
	if no != nil {
		return no
	}
	w.out.Add(stun.AttrLifetime, lifetimeValue(left))
	return nil
}
