package relay

import "github.com/pion/stun/v3"

// handleSend relays the datagram of a Send indication (RFC 8656 §11.2). Indications are
// not authenticated; what is wrong with them is dropped in silence. This is data path:
// no lock that others hold, no memory.
func (w *worker) handleSend(m *stun.Message, five FiveTuple) {
	now := w.time()
	a := w.s.flows.load(five)
	if a == nil || !a.liveAt(now) {
		w.s.metrics.drop(dropNoAllocation)
		return
	}

	// "MUST contain both an XOR-PEER-ADDRESS attribute and a DATA attribute"
	pv, hasPeer := m.Attributes.Get(stun.AttrXORPeerAddress)
	data, hasData := m.Attributes.Get(stun.AttrData)
	peer, ok := parseXORAddress(pv.Value, m.TransactionID)
	if !hasPeer || !hasData || !ok {
		w.s.metrics.drop(dropMalformed)
		return
	}
	for _, attr := range m.Attributes {
		if attr.Type.Required() && !understood[attr.Type] {
			w.s.metrics.drop(dropUnsupported)
			return
		}
	}

	// "checks that there is a permission installed for the IP address"
	perm := a.paths.permits(peer.Addr(), now)
	if perm == nil {
		w.s.metrics.drop(dropNoPermission)
		return
	}
	if m.Contains(stun.AttrDontFragment) {
		w.sendWhole(a, data.Value, peer, perm.verdict, now)
		return
	}
	w.sendToPeer(a, data.Value, peer, perm.verdict, now)
}
