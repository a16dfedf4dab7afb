package relay

import (
	"testing"
	"time"

	"github.com/pion/stun/v3"

	"epcscf/turncred"
)

// An Allocate with a token that was captured is worth nothing from another address, since
// its nonce is bound to the one that it was given to; from the same it is a retransmission.
func TestCapturedAllocateWithToken(t *testing.T) {
	w := newTokenWorld(t, nil)
	tok := w.issue(t, "alice", 20*time.Minute)
	victim, thief := w.client(t, UDP, turncred.Credential{}), w.client(t, UDP, turncred.Credential{})
	victim.challenge()
	thief.challenge()
	thief.nonce = victim.nonce
	captured := victim.request(stun.MethodAllocate, transportUDP)
	captured.Add(attrAccessToken, tok.Raw)
	captured.Add(stun.AttrUsername, []byte(tok.KeyID))
	captured.Add(stun.AttrNonce, []byte(victim.nonce))
	integritySHA1.addTo(captured, tok.MACKey.Reveal())

	first := victim.do(captured)
	wantCode(t, first, 0)
	wantCode(t, thief.do(captured), stun.CodeStaleNonce)
	if again := victim.do(captured); victim.relayed(again) != victim.relayed(first) {
		t.Error("a retransmission made another allocation")
	}
	if live, _, _ := w.totals(); live != 1 {
		t.Errorf("%d allocations, want the victim's alone", live)
	}
}
