package push

import (
	"crypto/x509"
	"net/url"
	"testing"
	"time"
)

func TestPeerOf(t *testing.T) {
	for _, tt := range []struct {
		uri string
		ok  bool
	}{
		{"spiffe://ims.test/turn-cred/edge/edge1", true},
		{"spiffe://ims.test/turn-cred/waf/waf-1", true},
		{"spiffe://other.test/turn-cred/edge/edge1", false},
		{"spiffe://ims.test/turn-cred/admin/edge1", false},
		{"spiffe://ims.test/turn-cred/edge/Edge1", false},
		{"spiffe://ims.test/turn-cred/edge/", false},
		{"spiffe://ims.test/turn-cred/edge/a/b", false},
		{"spiffe://ims.test/turn-cred/edge/edge1?x=1", false},
		{"spiffe://ims.test:1/turn-cred/edge/edge1", false},
		{"spiffe://u@ims.test/turn-cred/edge/edge1", false},
		{"https://ims.test/turn-cred/edge/edge1", false},
		{"spiffe://ims.test/turn-cred/edge/%65dge1", false},
	} {
		u, err := url.Parse(tt.uri)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := PeerOf(&x509.Certificate{URIs: []*url.URL{u}}, testDomain); (err == nil) != tt.ok {
			t.Errorf("PeerOf(%s): %v, want no error: %v", tt.uri, err, tt.ok)
		}
	}
	k := keysOf(t, authority(), RoleEdge, "edge1", time.Hour)
	if p, err := PeerOf(k.Pair.Leaf, testDomain); err != nil || p != (Peer{testDomain, RoleEdge, "edge1"}) {
		t.Errorf("PeerOf(issued) = %v, %v", p, err)
	}
}

// TestNextEpoch: an epoch grows with each start, whatever the clock, and without its file.
func TestNextEpoch(t *testing.T) {
	file := t.TempDir() + "/epoch"
	at := time.Unix(1_700_000_000, 0)
	var last uint64
	for _, now := range []time.Time{at, at, at.Add(-time.Hour), at.Add(time.Hour)} {
		e, err := NextEpoch(file, now)
		if err != nil || e <= last {
			t.Errorf("NextEpoch = %d, %v after %d", e, err, last)
		}
		last = e
	}
	if e, err := NextEpoch(t.TempDir()+"/lost", at.Add(2*time.Hour)); err != nil || e <= last {
		t.Errorf("NextEpoch without its file = %d, %v after %d", e, err, last)
	}
}
