package relay

import "github.com/pion/stun/v3"

// The channel numbers of RFC 8656 §12, and the end of RFC 5766's range.
const (
	minChannel     = 0x4000
	maxChannel     = 0x4FFF
	maxChannel5766 = 0x7FFF
)

// isChannel reports whether a message whose first byte is b is ChannelData.
func isChannel(b byte) bool { return b>>6 == minChannel>>14 }

// handleChannelBind follows RFC 8656 §12.2.
func (w *worker) handleChannelBind(r *request) *refusal {
	// "The request contains both a CHANNEL-NUMBER and an XOR-PEER-ADDRESS attribute"
	nv, noNumber := r.msg.Get(stun.AttrChannelNumber)
	pv, noPeer := r.msg.Get(stun.AttrXORPeerAddress)
	number, numberOK := channelNumberOf(nv)
	peer, peerOK := parseXORAddress(pv, r.msg.TransactionID)
	if noNumber != nil || noPeer != nil || !numberOK || !peerOK {
		return refuse(stun.CodeBadRequest, "CHANNEL-NUMBER or XOR-PEER-ADDRESS is missing or malformed")
	}

	// "The channel number is in the range 0x4000 through 0x4FFF (inclusive)": see
	// Config.StrictChannels.
	last := uint16(maxChannel5766)
	if w.s.cfg.StrictChannels {
		last = maxChannel
	}
	if number < minChannel || number > last {
		return refuse(stun.CodeBadRequest, "channel number out of range")
	}

	// 443 and 403; here the port counts too.
	v, no := w.judgePeer(r.alloc, peer.Addr())
	if no != nil {
		return no
	}
	if !w.s.admits(v, peer) {
		return refuse(stun.CodeForbidden, "peer is denied: "+peer.String())
	}

	// "not currently bound to a different transport address", nor to a different channel.
	switch r.alloc.paths.bind(number, peer, v, r.now) {
	case bindTaken:
		return refuse(stun.CodeBadRequest, "channel or peer is bound otherwise")
	case bindFull:
		return refuse(stun.CodeInsufficientCapacity, "too many channels or permissions")
	}
	r.alloc.peers.note(peer.Addr(), w.s.cfg.MaxPermissions)
	return nil
}
