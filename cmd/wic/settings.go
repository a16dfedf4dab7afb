package main

import (
	"bytes"
	"crypto/x509"
	"errors"
	"fmt"
	"net/url"
	"os"
	"time"

	"github.com/spf13/cobra"

	"epcscf/cmd/wic/internal/client"
	"epcscf/turncred"
)

// settings are the flags that all commands share.
type settings struct {
	url, domain, user, authUser, passwordFile, tokenFile, ca, origin string
	timeout                                                          time.Duration
	json                                                             bool
}

func (s *settings) flags(c *cobra.Command) {
	f := c.PersistentFlags()
	f.StringVar(&s.url, "url", "wss://127.0.0.1:8443/ws", "WebSocket of the eP-CSCF")
	f.StringVar(&s.domain, "domain", "ims.test", "home domain")
	f.StringVar(&s.user, "user", "", "user part of the public identity sip:USER@DOMAIN (required)")
	f.StringVar(&s.authUser, "auth-user", "", "digest user name, where it is not USER: often USER@DOMAIN")
	f.StringVar(&s.passwordFile, "password-file", "", "file with the SIP password; a newline at its end does not count (this or --token-file is required)")
	f.StringVar(&s.tokenFile, "token-file", "", "file with an access token of the WAF, in place of a password; it is read for each request")
	f.StringVar(&s.ca, "ca", "", "PEM file of the authority that signed the server's certificates, wss and turns (default: the system's)")
	f.StringVar(&s.origin, "origin", "", "Origin to send, where the server admits no client without one")
	f.DurationVar(&s.timeout, "timeout", 10*time.Second, "longest time for a registration, an OPTIONS, or the check of one URI")
	f.BoolVar(&s.json, "json", false, "print JSON to standard output; errors go to standard error all the same")
}

// check refuses what the command line alone shows to be wrong.
func (s *settings) check() error {
	u, err := url.Parse(s.url)
	switch {
	case err != nil || u.Host == "":
		return fmt.Errorf("--url %q: want wss://HOST:PORT/PATH", s.url)
	case u.Scheme == "ws":
		return fmt.Errorf("--url %q: a credential is never sent in clear: use wss://", s.url)
	case u.Scheme != "wss":
		return fmt.Errorf("--url %q: want wss://HOST:PORT/PATH", s.url)
	case s.domain == "":
		return errors.New("--domain is empty: want the home domain, such as ims.test")
	case s.user == "":
		return errors.New("--user is not set: whom shall I register?")
	case s.passwordFile == "" && s.tokenFile == "":
		return errors.New("--password-file is not set, nor is --token-file: a password on the command line would show in the process list")
	case s.passwordFile != "" && s.tokenFile != "":
		return errors.New("--password-file and --token-file: give one of them")
	case s.timeout <= 0:
		return fmt.Errorf("--timeout %v: want more than 0", s.timeout)
	}
	return nil
}

// config reads the files.
func (s *settings) config() (client.Config, error) {
	roots, err := s.roots()
	if err != nil {
		return client.Config{}, err
	}
	cfg := client.Config{
		URL: s.url, Domain: s.domain, User: s.user, AuthUser: s.authUser, Roots: roots, Origin: s.origin, Agent: "wic/" + version,
	}
	if s.tokenFile != "" {
		cfg.Token = func() (turncred.Secret, error) { return secretIn("--token-file", s.tokenFile) }
		_, err = cfg.Token()
	} else {
		cfg.Password, err = secretIn("--password-file", s.passwordFile)
	}
	return cfg, err
}

// secretIn reads the file that a flag names, without the newline at its end.
func secretIn(flag, name string) (turncred.Secret, error) {
	raw, err := os.ReadFile(name)
	if err != nil {
		return turncred.Secret{}, fmt.Errorf("%s: %w", flag, err)
	}
	secret := bytes.TrimRight(raw, "\r\n")
	if len(secret) == 0 {
		return turncred.Secret{}, fmt.Errorf("%s: %s is empty", flag, name)
	}
	return turncred.NewSecret(secret), nil
}

// roots returns the authorities of --ca, or nil for the system's.
func (s *settings) roots() (*x509.CertPool, error) {
	if s.ca == "" {
		return nil, nil
	}
	pem, err := os.ReadFile(s.ca)
	if err != nil {
		return nil, fmt.Errorf("--ca: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("--ca: %s has no certificate in PEM form", s.ca)
	}
	return pool, nil
}
