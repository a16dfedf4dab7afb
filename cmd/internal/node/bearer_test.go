package node

import (
	"crypto/x509"
	"errors"
	"net/http"
	"net/http/httptest"
	"testing"

	"epcscf/proxy"
	"epcscf/turncred"
	"epcscf/waf/bearer"
)

// TestNoTokenToStrangers: an introspection endpoint that sends on to another host gets no
// token carried there, and what it says is no verdict on the token.
func TestNoTokenToStrangers(t *testing.T) {
	asked := 0
	stranger := httptest.NewTLSServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { asked++ }))
	defer stranger.Close()
	srv := httptest.NewTLSServer(http.RedirectHandler(stranger.URL, http.StatusTemporaryRedirect))
	defer srv.Close()
	pool := x509.NewCertPool()
	pool.AddCert(srv.Certificate())
	c, err := newTokenCheck(Bearer{
		Expected: bearer.Expected{Issuer: srv.URL, Audience: "sip:ims.test"}, IntrospectionURL: srv.URL,
		ClientID: "edge", ClientSecret: turncred.NewSecret([]byte("secret")), Authorities: pool,
	})
	if err != nil {
		t.Fatal(err)
	}
	defer c.close()
	_, err = c.Verify(t.Context(), "a.b.c")
	if err == nil || errors.Is(err, proxy.ErrTokenInvalid) || errors.Is(err, proxy.ErrTokenScope) || asked > 0 {
		t.Errorf("%v, the stranger was asked %d times; want no verdict, and never", err, asked)
	}
	if c.Immediate() {
		t.Error("it does not wait for the WAF, it says")
	}
}
