package node

import (
	"crypto/tls"
	"strings"
	"testing"
)

func TestSuitesOfTLS12AreAEADWithForwardSecrecy(t *testing.T) {
	ids := aeadSuites()
	if len(ids) != 6 {
		t.Errorf("%d suites, want 6", len(ids))
	}
	for _, id := range ids {
		if name := tls.CipherSuiteName(id); !strings.HasPrefix(name, "TLS_ECDHE_") || strings.Contains(name, "_CBC_") {
			t.Errorf("suite %s", name)
		}
	}
}
