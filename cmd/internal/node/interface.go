package node

import (
	"crypto/hkdf"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"epcscf/store"
	"epcscf/turncred"
	"epcscf/turncred/push"
)

// Interface is a node's place at the credential interface between edges and relays.
type Interface struct {
	Name        string // as the certificate has it
	Domain      string // of the deployment, in all certificates
	Certificate *Certificate
	Authorities *Authorities
	// StateDir is for what must outlive the process, made if missing; From is the key that
	// an error about it names.
	StateDir, From string
}

// interfaceKeys implements push.Keys.
type interfaceKeys struct{ *Interface }

var _ push.Keys = interfaceKeys{}

// Certificate implements push.Keys.
func (k interfaceKeys) Certificate() *tls.Certificate { return k.Interface.Certificate.current.Load() }

// Authorities implements push.Keys.
func (k interfaceKeys) Authorities() *x509.CertPool { return k.Interface.Authorities.Pool() }

// CheckCertificate refuses a certificate that is not that of the node in a role.
func (i *Interface) CheckCertificate(role push.Role) error {
	p, err := push.PeerOf(i.Certificate.Leaf(), i.Domain)
	want := push.Peer{Domain: i.Domain, Role: role, Name: i.Name}
	switch {
	case err != nil:
		return fmt.Errorf("%w: want %s; epcscf pki issue makes one", err, want.URI())
	case p != want:
		return fmt.Errorf("the certificate is that of %s, want %s: see name, or issue another", p, want)
	}
	return nil
}

// makeStateDir makes the directory; the error names the key.
func (i *Interface) makeStateDir() error {
	err := os.MkdirAll(i.StateDir, 0o700)
	if errors.Is(err, fs.ErrPermission) {
		return fmt.Errorf("%s %s: %w: name a directory that this user may write", i.From, i.StateDir, err)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", i.From, err)
	}
	return nil
}

// stateKEKs are the keys that a node's own files are sealed under. The deployment secret
// makes them, so that they need no care of their own; without it the files tell nothing.
func stateKEKs(deployment turncred.Secret, label string) (*store.KEKs, error) {
	key, err := hkdf.Key(sha256.New, deployment.Reveal(), nil, label, 32)
	if err != nil {
		return nil, err
	}
	return store.NewKEKs(store.KEK{ID: "deployment", Secret: turncred.NewSecret(key)})
}
