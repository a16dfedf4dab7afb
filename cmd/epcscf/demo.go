package main

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"strings"
	"text/template"
	"time"

	"github.com/spf13/cobra"

	"epcscf/cmd/internal/node"
	"epcscf/proxy"
	"epcscf/turncred"
	"epcscf/wic"
)

// demoFlags are the flags of epcscf demo, as written.
type demoFlags struct {
	listen, turnListen, turnsListen, adminListen, coreListen, wafListen string
	approach, core, domain, dataDir, logLevel                           string
	ttl, tokenLife                                                      time.Duration
}

func newDemoCommand() *cobra.Command {
	var f demoFlags
	c := &cobra.Command{
		Use:   "demo",
		Short: "Run edge, relay, page and a miniature core in one process",
		Long: `Run the eP-CSCF, its TURN relay, a page with a WIC and a miniature core in one
process. It needs no database, no network and no certificate: a local CA and what
else it keeps are made in --data-dir. Not for production.`,
		Args: noArgs,
		RunE: func(c *cobra.Command, _ []string) error { return runDemo(c, f) },
	}
	fl := c.Flags()
	fl.StringVar(&f.listen, "listen", "127.0.0.1:8443", "https: the page, and SIP over WebSocket at / and /ws")
	fl.StringVar(&f.turnListen, "turn-listen", "127.0.0.1:3478", "TURN over UDP and TCP")
	fl.StringVar(&f.turnsListen, "turns-listen", "127.0.0.1:5349", "TURN over TLS")
	fl.StringVar(&f.adminListen, "admin-listen", "127.0.0.1:9090", "metrics and health, loopback only")
	fl.StringVar(&f.wafListen, "waf-listen", "127.0.0.1:8444", "https: the OAuth authorization server; empty for none")
	fl.StringVar(&f.approach, "turn-approach", string(turncred.ApproachSharedKey), "how TURN credentials come about: shared-key or push")
	fl.StringVar(&f.core, "core", "", "send requests to this core in place of the miniature one: udp:HOST:PORT or tcp:HOST:PORT")
	fl.StringVar(&f.coreListen, "core-listen", "127.0.0.1:5060", "where the core reaches us, UDP and TCP: stands in Via, Path and Record-Route")
	fl.StringVar(&f.domain, "domain", "ims.test", "home domain, and realm of TURN")
	fl.StringVar(&f.dataDir, "data-dir", "epcscf-demo", "directory of keys, certificates and passwords, made if missing")
	fl.DurationVar(&f.ttl, "ttl", 10*time.Minute, "longest life of a TURN credential")
	fl.DurationVar(&f.tokenLife, "token-life", 10*time.Minute, "life of a registration token; a TURN token lives for --ttl")
	fl.StringVar(&f.logLevel, "log-level", "info", "log to standard error from this level: debug, info, warn or error")
	return c
}

// config turns flags into a node's configuration; an error names the flag.
func (f demoFlags) config(errOut io.Writer) (cfg node.Demo, err error) {
	for _, a := range []struct {
		flag, value string
		to          *netip.AddrPort
	}{
		{"--listen", f.listen, &cfg.Listen}, {"--turn-listen", f.turnListen, &cfg.TURNListen}, {"--turns-listen", f.turnsListen, &cfg.TURNSListen},
		{"--admin-listen", f.adminListen, &cfg.AdminListen}, {"--core-listen", f.coreListen, &cfg.CoreListen},
	} {
		if *a.to, err = parseListen(a.value); err != nil {
			return cfg, fmt.Errorf("%s: %w", a.flag, err)
		}
	}
	if f.wafListen != "" {
		if cfg.WAFListen, err = parseListen(f.wafListen); err != nil {
			return cfg, fmt.Errorf("--waf-listen: %w", err)
		}
	}
	if f.core != "" {
		next, err := proxy.ParseNextHop(f.core)
		if err != nil {
			return cfg, fmt.Errorf("--core: %w", err)
		}
		cfg.Core = &next
	}
	if cfg.Approach, err = turncred.ParseApproach(f.approach); err != nil {
		return cfg, fmt.Errorf("--turn-approach: %w", err)
	}
	var level slog.Level
	if err := level.UnmarshalText([]byte(f.logLevel)); err != nil {
		return cfg, fmt.Errorf("--log-level %q: use debug, info, warn or error", f.logLevel)
	}
	cfg.Logger = slog.New(slog.NewTextHandler(errOut, &slog.HandlerOptions{Level: level}))
	cfg.Domain, cfg.DataDir, cfg.TTL, cfg.TokenLife = f.domain, f.dataDir, f.ttl, f.tokenLife
	return cfg, nil
}

// parseListen reads IP:PORT; the name localhost is 127.0.0.1.
func parseListen(s string) (netip.AddrPort, error) {
	a, err := netip.ParseAddrPort(strings.Replace(s, "localhost:", "127.0.0.1:", 1))
	if err != nil {
		return a, fmt.Errorf("%q: want IP:PORT, for example 127.0.0.1:8443", s)
	}
	return a, nil
}

func runDemo(c *cobra.Command, f demoFlags) error {
	cfg, err := f.config(c.ErrOrStderr())
	if err != nil {
		return usageError{err}
	}
	n, err := node.ListenDemo(cfg)
	if bad := new(node.ConfigError); errors.As(err, &bad) {
		return usageError{err}
	}
	if err != nil {
		return err
	}
	file, err := n.Info().WriteFile()
	if err != nil {
		return errors.Join(err, n.Close())
	}
	if err := printBanner(c.OutOrStdout(), n.Info(), file); err != nil {
		return errors.Join(err, n.Close())
	}
	if err := n.Run(c.Context()); err != nil {
		return err
	}
	_, err = fmt.Fprintln(c.OutOrStdout(), "stopped")
	return err
}

var banner = template.Must(template.New("banner").Parse(`epcscf demo, approach {{.Approach}}, domain {{.Domain}}

  Page        {{.Page}}{{if not .PageBuilt}}   (not built in: run "make build"){{end}}
{{range .Users}}  User        {{printf "%-6s" .User}}  password {{.Password}}
{{end}}  SIP         {{.WebSocket}}
{{range .TURNURIs}}  TURN        {{.}}
{{end}}  Core        {{.Core}}{{if .MiniCore}} (miniature, in this process, not for production){{end}}
  Core side   {{.CoreListen}} udp, tcp
  Admin       {{.Admin}}/metrics
{{with .WAF}}  OAuth       {{.}} (client {{$.WAFClient}}; the implicit grant is on, because this is a demo)
{{end}}  Data        {{.File}} has all of this

A browser takes a clicked-through warning for the page, but not for turns:. Either
start Chromium so that it trusts this demo alone:

  {{.ChromiumCommand}}

or import {{.CA}} as an authority for web sites
(chrome://settings/certificates; the CA can speak for this host only).
{{if .LoopbackOpen}}
Peers on loopback are allowed through the relay, because this is a demo.
{{end}}
Ctrl-C ends it.
`))

func printBanner(w io.Writer, i node.Info, file string) error {
	return banner.Execute(w, struct {
		node.Info
		File      string
		PageBuilt bool
	}{i, file, wic.Built()})
}
