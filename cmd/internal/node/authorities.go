package node

import (
	"crypto/x509"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
)

// Authorities are certificates of authorities in a file, read again when it changes.
type Authorities struct {
	file    string
	current atomic.Pointer[x509.CertPool]

	mu   sync.Mutex // guards seen
	seen fileStamp
}

// LoadAuthorities reads a file of certificates, PEM; the error names it.
func LoadAuthorities(file string) (*Authorities, error) {
	a := &Authorities{file: file, seen: stampOf(file)}
	pool, err := readPool(file)
	if err != nil {
		return nil, err
	}
	a.current.Store(pool)
	return a, nil
}

// Pool is what is trusted now; after a change it is another pointer.
func (a *Authorities) Pool() *x509.CertPool { return a.current.Load() }

// Reload reads the file again if it has changed or force says so. Where it holds no
// certificate what was trusted stays trusted, and the error says why.
func (a *Authorities) Reload(force bool) (changed bool, err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	stamp := stampOf(a.file)
	if !force && stamp == a.seen {
		return false, nil
	}
	a.seen = stamp
	pool, err := readPool(a.file)
	if err != nil || pool.Equal(a.current.Load()) {
		return false, err
	}
	a.current.Store(pool)
	return true, nil
}

func readPool(file string) (*x509.CertPool, error) {
	pem, err := os.ReadFile(file)
	if err != nil {
		return nil, FileError(file, err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("%s: holds no certificate in PEM", file)
	}
	return pool, nil
}

func stampOf(name string) fileStamp {
	st, err := os.Stat(name)
	if err != nil {
		return fileStamp{gone: true}
	}
	return fileStamp{size: st.Size(), modified: st.ModTime()}
}
