package node

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Certificate is a certificate with its key, read from two files and read again when they
// change: connections that stand keep the old one, new ones get the new one.
type Certificate struct {
	certFile, keyFile string // "": it never changes

	current atomic.Pointer[tls.Certificate]
	broken  atomic.Bool // the files hold no pair that can be shown; current stays

	mu   sync.Mutex // guards seen
	seen [2]fileStamp
}

// fileStamp tells one state of a file from another without reading it.
type fileStamp struct {
	size     int64
	modified time.Time
	gone     bool
}

// FixedCertificate is one that never changes.
func FixedCertificate(pair tls.Certificate) *Certificate {
	c := &Certificate{}
	c.current.Store(&pair)
	return c
}

// LoadCertificate reads a chain and its key, both PEM. It refuses a pair that does not
// match, is not valid at now, or whose key others may read; the error names the file.
func LoadCertificate(certFile, keyFile string, now time.Time) (*Certificate, error) {
	c := &Certificate{certFile: certFile, keyFile: keyFile}
	c.seen = c.stamps()
	pair, err := readPair(certFile, keyFile, now)
	if err != nil {
		return nil, err
	}
	c.current.Store(pair)
	return c, nil
}

// Leaf is the certificate that is shown now.
func (c *Certificate) Leaf() *x509.Certificate { return c.current.Load().Leaf }

// ExpiresSoon reports whether somebody should look: one that is made for days is renewed
// every day, one for months in its last weeks.
func (c *Certificate) ExpiresSoon(now time.Time) bool {
	leaf := c.Leaf()
	return leaf.NotAfter.Sub(now) < min(expiresSoon, leaf.NotAfter.Sub(leaf.NotBefore)/3)
}

// get is for tls.Config.GetCertificate.
func (c *Certificate) get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	return c.current.Load(), nil
}

// Reload reads the files again if they have changed since they were last read, or if force
// says so. Where they hold nothing that can be shown, what is shown stays, and the error
// says why.
func (c *Certificate) Reload(force bool, now time.Time) (changed bool, err error) {
	if c.certFile == "" {
		return false, nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	stamps := c.stamps()
	if !force && stamps == c.seen {
		return false, nil
	}
	c.seen = stamps
	pair, err := readPair(c.certFile, c.keyFile, now)
	c.broken.Store(err != nil)
	if err != nil {
		return false, err
	}
	old := c.current.Swap(pair)
	return !old.Leaf.Equal(pair.Leaf), nil
}

func (c *Certificate) stamps() (s [2]fileStamp) {
	for i, name := range []string{c.certFile, c.keyFile} {
		st, err := os.Stat(name)
		if err != nil {
			s[i].gone = true
			continue
		}
		s[i] = fileStamp{size: st.Size(), modified: st.ModTime()}
	}
	return s
}

func readPair(certFile, keyFile string, now time.Time) (*tls.Certificate, error) {
	certPEM, err := os.ReadFile(certFile)
	if err != nil {
		return nil, FileError(certFile, err)
	}
	// A group may read a TLS key, as Debian's ssl-cert does; it may not change it.
	keyPEM, err := readPrivate(keyFile, 0o027)
	if err != nil {
		return nil, err
	}
	pair, err := tls.X509KeyPair(certPEM, keyPEM)
	if err != nil {
		return nil, fmt.Errorf("%s with the key %s: %w", certFile, keyFile, err)
	}
	switch leaf := pair.Leaf; {
	case now.After(leaf.NotAfter):
		return nil, fmt.Errorf("%s: expired on %s: renew it", certFile, leaf.NotAfter.UTC().Format(time.DateTime))
	case now.Before(leaf.NotBefore):
		return nil, fmt.Errorf("%s: not valid before %s: see the clock of this host", certFile, leaf.NotBefore.UTC().Format(time.DateTime))
	}
	return &pair, nil
}

const (
	// pollCertificates is how often files are looked at: soon enough for a tool that
	// renews and signals nobody.
	pollCertificates = 5 * time.Second
	// expiresSoon is when a certificate that nobody renews wants a line in the log.
	expiresSoon = 14 * 24 * time.Hour
)

// shownCertificates are the certificates of a node, by the part that shows them.
type shownCertificates struct {
	parts []string
	certs []*Certificate
	// trusted are the authorities that a part takes certificates of.
	trusted map[string]*Authorities
}

// showCertificates gathers a configuration's certificates and registers their metrics.
func showCertificates(cfg Config, reg prometheus.Registerer) *shownCertificates {
	s := &shownCertificates{}
	s.add("proxy", cfg.Certificate, reg)
	if cfg.Relay != nil && cfg.Relay.Certificate != nil {
		s.add("relay", cfg.Relay.Certificate, reg)
	}
	if cfg.CoreTLS != nil {
		s.add("core", cfg.CoreTLS.Certificate, reg)
	}
	if cfg.Fleet != nil && cfg.Fleet.ours() {
		s.add("interface", cfg.Fleet.Certificate, reg)
		s.trust("interface", cfg.Fleet.Authorities)
	}
	if cfg.Hearing != nil && (cfg.Fleet == nil || !cfg.Fleet.ours()) {
		s.add("interface", cfg.Hearing.Certificate, reg)
		s.trust("interface", cfg.Hearing.Authorities)
	}
	if cfg.WAF != nil && cfg.WAF.Certificate != cfg.Certificate {
		s.add("waf", cfg.WAF.Certificate, reg)
	}
	if cfg.WAF != nil && cfg.WAF.Interface != nil {
		s.add("waf interface", cfg.WAF.Interface.Certificate, reg)
		s.trust("waf interface", cfg.WAF.Interface.Authorities)
	}
	return s
}

// trust watches over the authorities of a part.
func (s *shownCertificates) trust(part string, a *Authorities) {
	if s.trusted == nil {
		s.trusted = map[string]*Authorities{}
	}
	s.trusted[part] = a
}

func (s *shownCertificates) add(part string, c *Certificate, reg prometheus.Registerer) {
	s.parts, s.certs = append(s.parts, part), append(s.certs, c)
	label := prometheus.Labels{"part": part}
	reg.MustRegister(
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "epcscf_certificate_expires_days", Help: "Days until the certificate that is shown expires.", ConstLabels: label,
		}, func() float64 { return time.Until(c.Leaf().NotAfter).Hours() / 24 }),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "epcscf_certificate_broken", Help: "1 where the files hold no pair that can be shown, so that the one before is.", ConstLabels: label,
		}, func() float64 {
			if c.broken.Load() {
				return 1
			}
			return 0
		}),
	)
}

// watch looks at the files until ctx ends.
func (s *shownCertificates) watch(ctx context.Context, log *slog.Logger) {
	s.warnOfExpiry(log, time.Now())
	tick := time.NewTicker(pollCertificates)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-tick.C:
			s.reload(false, log, now)
		}
	}
}

// reload reads what has changed, or everything where force says so. A certificate that two
// parts share is read once.
func (s *shownCertificates) reload(force bool, log *slog.Logger, now time.Time) {
	for i, c := range s.certs {
		if slices.Index(s.certs, c) < i {
			continue
		}
		changed, err := c.Reload(force, now)
		switch {
		case err != nil:
			log.Error("certificate not taken; the one before is still shown", "part", s.parts[i], "err", err)
		case changed:
			log.Info("certificate renewed", "part", s.parts[i], "expires", c.Leaf().NotAfter)
		}
	}
	for part, a := range s.trusted {
		changed, err := a.Reload(force)
		switch {
		case err != nil:
			log.Error("authorities not taken; those before are still trusted", "part", part, "err", err)
		case changed:
			log.Info("authorities changed", "part", part)
		}
	}
}

func (s *shownCertificates) warnOfExpiry(log *slog.Logger, now time.Time) {
	for i, c := range s.certs {
		if c.ExpiresSoon(now) {
			log.Warn("certificate expires soon", "part", s.parts[i], "expires", c.Leaf().NotAfter)
		}
	}
}

// turnTLS is for TURN over TLS; the relay adds its suites and protocols.
func turnTLS(c *Certificate) *tls.Config {
	return &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: c.get}
}
