package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"text/template"
	"time"

	"github.com/spf13/cobra"

	"epcscf/cmd/internal/node"
	"epcscf/turncred"
	"epcscf/turncred/push"
)

func newPKICommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "pki",
		Short: "Make certificates for the interface between edges and relays",
		Long: `Make a private certificate authority, and certificates for the credential interface
between edges, relays and WAF, where the operator has no PKI of his own. One that he has
does as well: a node's certificate must have one URI in its subjectAltName,
spiffe://DOMAIN/turn-cred/ROLE/NAME.`,
		Args: noArgs,
		RunE: func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	c.AddCommand(newPKIInitCommand(), newPKIIssueCommand())
	return c
}

// authorityFiles are an authority's, in its directory.
func authorityFiles(dir string) (cert, key string) {
	return filepath.Join(dir, "ca.pem"), filepath.Join(dir, "ca.key")
}

type pkiInitFlags struct {
	dir, domain string
	life        time.Duration
}

func newPKIInitCommand() *cobra.Command {
	var f pkiInitFlags
	c := &cobra.Command{
		Use:     "init --domain DOMAIN",
		Short:   "Make the authority",
		Example: "  epcscf pki init --domain ims.example",
		Args:    noArgs,
		RunE:    func(c *cobra.Command, _ []string) error { return f.run(c.OutOrStdout()) },
	}
	c.Flags().StringVar(&f.dir, "dir", "pki", "directory of the authority, made if missing")
	c.Flags().StringVar(&f.domain, "domain", "", "home domain; the authority can speak for its nodes only")
	c.Flags().DurationVar(&f.life, "life", 5*365*24*time.Hour, "until the authority ends")
	return c
}

func (f pkiInitFlags) run(out io.Writer) error {
	if err := node.CheckDomain(f.domain); err != nil {
		return usageError{fmt.Errorf("--domain %q: %w", f.domain, err)}
	}
	if f.life < 24*time.Hour {
		return usageError{fmt.Errorf("--life %v: want 24h or more", f.life)}
	}
	a, err := push.NewAuthority(f.domain, f.life, time.Now())
	if err != nil {
		return err
	}
	key, err := a.KeyPEM()
	if err != nil {
		return err
	}
	if err := os.MkdirAll(f.dir, 0o700); err != nil {
		return fmt.Errorf("--dir: %w", err)
	}
	certFile, keyFile := authorityFiles(f.dir)
	if err := writeNew(keyFile, key.Reveal()); err != nil {
		return alreadyThere(err, "it is the authority's key, and every node trusts it: to begin anew, move the directory away")
	}
	if err := writeNew(certFile, a.PEM()); err != nil {
		return alreadyThere(err, "to begin anew, move the directory away")
	}
	_, err = fmt.Fprintf(out, `The authority of %s, good until %s:
  %s   goes to every node, as ca_file
  %s   stays here; whoever has it can be any node

Next, for each node:
  epcscf pki issue --dir %s --role edge  --name edge1
  epcscf pki issue --dir %s --role relay --name relay1 --dns relay1.%s
`, a.Domain(), a.NotAfter().UTC().Format(time.DateOnly), certFile, keyFile, f.dir, f.dir, a.Domain())
	return err
}

type pkiIssueFlags struct {
	dir, out, role, name string
	dns, ip              []string
	life                 time.Duration
	renew                bool
}

func newPKIIssueCommand() *cobra.Command {
	var f pkiIssueFlags
	c := &cobra.Command{
		Use:   "issue --role ROLE --name NAME",
		Short: "Make a node's certificate and key",
		Long: `Make a certificate and a key for a node: edge, relay or waf. It is good for a day, so
that one that is lost is not good for long; --renew makes its successor in place of it,
which the node shows within 5 s, without a restart.`,
		Example: `  epcscf pki issue --role edge --name edge1
  epcscf pki issue --role relay --name relay1 --dns relay1.ims.example --ip 10.0.0.6`,
		Args: noArgs,
		RunE: func(c *cobra.Command, _ []string) error { return f.run(c.OutOrStdout()) },
	}
	fl := c.Flags()
	fl.StringVar(&f.dir, "dir", "pki", "directory of the authority")
	fl.StringVar(&f.out, "out", "", "directory for the new files; default: that of the authority")
	fl.StringVar(&f.role, "role", "", "edge, relay or waf")
	fl.StringVar(&f.name, "name", "", "name of the node, unlike any other of its role")
	fl.StringSliceVar(&f.dns, "dns", nil, "host name at which others reach it: a relay, or where an edge or a WAF listens; may be given again")
	fl.StringSliceVar(&f.ip, "ip", nil, "address at which others reach it; may be given again")
	fl.DurationVar(&f.life, "life", 24*time.Hour, "until the certificate expires")
	fl.BoolVar(&f.renew, "renew", false, "replace a certificate and key that are there")
	return c
}

// check returns whose certificate is asked for; an error names the flag.
func (f pkiIssueFlags) check() (push.Peer, error) {
	role, err := push.ParseRole(f.role)
	if err != nil {
		return push.Peer{}, fmt.Errorf("--role: %w", err)
	}
	if err := push.CheckPeerName(f.name); err != nil {
		return push.Peer{}, fmt.Errorf("--name %w", err)
	}
	for _, h := range f.dns {
		if node.CheckDomain(h) != nil {
			return push.Peer{}, fmt.Errorf("--dns %q: want a host name, such as relay1.ims.example", h)
		}
	}
	for _, a := range f.ip {
		if net.ParseIP(a) == nil {
			return push.Peer{}, fmt.Errorf("--ip %q: want an IP address, such as 10.0.0.6", a)
		}
	}
	switch hosts := len(f.dns) + len(f.ip); {
	case role == push.RoleRelay && hosts == 0:
		return push.Peer{}, errors.New("--dns or --ip: say how edges reach the relay, such as --dns relay1.ims.example")
	case f.life < time.Minute || f.life > 398*24*time.Hour:
		return push.Peer{}, fmt.Errorf("--life %v: want 1m to 9552h", f.life)
	}
	return push.Peer{Role: role, Name: f.name}, nil
}

func (f pkiIssueFlags) run(out io.Writer) error {
	peer, err := f.check()
	if err != nil {
		return usageError{err}
	}
	a, err := readAuthority(f.dir)
	if err != nil {
		return usageError{err}
	}
	if f.out == "" {
		f.out = f.dir
	}
	if err := os.MkdirAll(f.out, 0o700); err != nil {
		return fmt.Errorf("--out: %w", err)
	}
	peer.Domain = a.Domain()
	hosts := append(append([]string(nil), f.dns...), f.ip...)
	now := time.Now()
	cert, key, err := a.Issue(peer, hosts, f.life, now)
	if err != nil {
		return err
	}
	base := filepath.Join(f.out, string(peer.Role)+"-"+peer.Name)
	if err := f.write(base, cert, key); err != nil {
		return err
	}
	return issuedText.Execute(out, map[string]any{
		"Peer": peer, "URI": peer.URI(), "Cert": base + ".pem", "Key": base + ".key", "CA": filepath.Join(f.dir, "ca.pem"),
		"Until": now.Add(f.life).UTC().Format(time.RFC3339), "Hosts": strings.Join(hosts, " "), "Renew": f.again(),
		"Edge": peer.Role == push.RoleEdge, "Relay": peer.Role == push.RoleRelay,
	})
}

func (f pkiIssueFlags) write(base string, cert []byte, key turncred.Secret) error {
	if f.renew {
		// The key first: a node that reads between the two finds a pair that does not match,
		// and goes on with the one that it has.
		return errors.Join(node.ReplaceFile(base+".key", key.Reveal()), node.ReplaceFile(base+".pem", cert))
	}
	const remedy = "--renew replaces it"
	if err := writeNew(base+".key", key.Reveal()); err != nil {
		return alreadyThere(err, remedy)
	}
	return alreadyThere(writeNew(base+".pem", cert), remedy)
}

// again is the command that renews.
func (f pkiIssueFlags) again() string {
	args := []string{"epcscf pki issue --renew --dir", f.dir, "--role", f.role, "--name", f.name}
	if f.out != f.dir {
		args = append(args, "--out", f.out)
	}
	for _, h := range f.dns {
		args = append(args, "--dns", h)
	}
	for _, a := range f.ip {
		args = append(args, "--ip", a)
	}
	return strings.Join(args, " ")
}

var issuedText = template.Must(template.New("issued").Parse(`The certificate of {{.Peer}} ({{.URI}}){{if .Hosts}} at {{.Hosts}}{{end}}, good until {{.Until}}:
  {{.Cert}}
  {{.Key}}

{{if .Edge}}Copy both and {{.CA}} to the edge. In its epcscf.yaml:
  turn:
    interface:
      name: {{.Peer.Name}}
      cert_file: {{.Cert}}
      key_file: {{.Key}}
      ca_file: {{.CA}}
{{else if .Relay}}Copy both and {{.CA}} to the relay. In its relay.yaml:
  interface:
    name: {{.Peer.Name}}
    cert_file: {{.Cert}}
    key_file: {{.Key}}
    ca_file: {{.CA}}
{{else}}Copy both and {{.CA}} to the WAF. In its epcscf.yaml:
  waf:
    interface:
      name: {{.Peer.Name}}
      cert_file: {{.Cert}}
      key_file: {{.Key}}
      ca_file: {{.CA}}
{{end}}
Renew it before it expires, from a timer:
  {{.Renew}}
and copy the two files again; they are taken without a restart.
`))

// readAuthority reads what pki init has written.
func readAuthority(dir string) (*push.Authority, error) {
	certFile, keyFile := authorityFiles(dir)
	cert, err := os.ReadFile(certFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%s: there is no authority: make one with epcscf pki init --dir %s --domain DOMAIN", certFile, dir)
	}
	if err != nil {
		return nil, node.FileError(certFile, err)
	}
	key, err := node.ReadSecret(keyFile)
	if err != nil {
		return nil, err
	}
	a, err := push.LoadAuthority(cert, key)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", certFile, err)
	}
	if time.Now().After(a.NotAfter()) {
		return nil, fmt.Errorf("%s: the authority ended on %s: make another with epcscf pki init, and have all nodes trust both for a while", certFile, a.NotAfter().UTC().Format(time.DateOnly))
	}
	return a, nil
}

// writeNew writes a file of mode 0600 that is not there yet.
func writeNew(name string, data []byte) error {
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	return errors.Join(err, f.Sync(), f.Close())
}

// alreadyThere words why a file was not overwritten.
func alreadyThere(err error, remedy string) error {
	var path *fs.PathError
	if errors.Is(err, fs.ErrExist) && errors.As(err, &path) {
		return usageError{fmt.Errorf("%s is there already, and nothing was overwritten: %s", path.Path, remedy)}
	}
	return err
}
