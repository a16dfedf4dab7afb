package relay

import (
	"net/netip"

	"github.com/pion/stun/v3"
)

// handleCreatePermission follows RFC 8656 §10.2. It installs all permissions or none.
func (w *worker) handleCreatePermission(r *request) *refusal {
	// "If no such attribute exists, or if any of these attributes are invalid": 400.
	var peers []netip.AddrPort
	for _, a := range r.msg.Attributes {
		if a.Type != stun.AttrXORPeerAddress {
			continue
		}
		peer, ok := parseXORAddress(a.Value, r.msg.TransactionID)
		if !ok {
			return refuse(stun.CodeBadRequest, "XOR-PEER-ADDRESS is malformed")
		}
		if peers = append(peers, peer); len(peers) > w.s.cfg.MaxPermissions {
			return refuse(stun.CodeInsufficientCapacity, "too many permissions")
		}
	}
	if len(peers) == 0 {
		return refuse(stun.CodeBadRequest, "no XOR-PEER-ADDRESS")
	}

	// 443 and 403 for any one peer refuse the whole request.
	verdicts := make(map[netip.Addr]verdict, len(peers))
	for _, peer := range peers {
		v, no := w.judgePeer(r.alloc, peer.Addr())
		if no != nil {
			return no
		}
		verdicts[peer.Addr()] = v
	}

	// "the server installs or refreshes a permission for the IP address contained in each
	// XOR-PEER-ADDRESS attribute"
	if !r.alloc.paths.permit(verdicts, r.now) {
		return refuse(stun.CodeInsufficientCapacity, "too many permissions")
	}
	for ip := range verdicts {
		r.alloc.peers.note(ip, w.s.cfg.MaxPermissions)
	}
	return nil
}

// judgePeer returns the policy's verdict on a peer of a, or the refusal: 443 for the other
// family, 403 for what is not allowed (RFC 8656 §10.2, §12.2).
func (w *worker) judgePeer(a *allocation, ip netip.Addr) (verdict, *refusal) {
	if a.leg(ip) == nil {
		return denied, refuse(stun.CodePeerAddrFamilyMismatch, "peer is of the other family")
	}
	v := w.s.policy.judge(ip)
	if v == denied {
		return denied, refuse(stun.CodeForbidden, "peer is denied: "+ip.String())
	}
	return v, nil
}
