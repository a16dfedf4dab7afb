package main

import (
	"log/slog"

	"github.com/spf13/cobra"

	"epcscf/cmd/internal/config"
	"epcscf/cmd/internal/node"
	"epcscf/wic"
)

// serveFlags are the flags of epcscf serve.
type serveFlags struct{ file, approach string }

func newServeCommand() *cobra.Command {
	var s serveFlags
	c := &cobra.Command{
		Use:   "serve",
		Short: "Run edge and relay before a real core, from a configuration file",
		Long: `Run the eP-CSCF and its TURN relay before a real core, from one configuration file:
"epcscf config" prints all that it may hold, "epcscf check" checks it.

SIGHUP reads the certificates again, and turn.approach, keys, tokens.keys and
log.level; the rest waits for a restart. Certificates whose files change are read again without it. SIGTERM
turns readiness red, closes the WebSockets with 1001 and ends.`,
		Args: noArgs,
		RunE: func(c *cobra.Command, _ []string) error { return runServe(c, s) },
	}
	fl := c.Flags()
	fl.StringVarP(&s.file, "config", "c", defaultConfig, "configuration file")
	fl.StringVar(&s.approach, "turn-approach", "", "how TURN credentials come about, in place of turn.approach: shared-key or push")
	return c
}

func runServe(c *cobra.Command, s serveFlags) error {
	load := func() (*config.File, error) { return config.Load(s.file, s.approach) }
	return runProcess(c, load, func(f *config.File, log *slog.Logger) (process, error) {
		cfg := f.Node()
		cfg.Logger = log
		if f.Page {
			page, err := wic.NewHandler(wic.PageConfig{Domain: cfg.Proxy.Domain, TURNApproach: string(cfg.TURN.Approach)})
			if err != nil {
				return nil, err
			}
			cfg.Page = page
		}
		n, err := node.Listen(cfg)
		if err != nil {
			return nil, err
		}
		return edgeProcess{n}, nil
	})
}

// edgeProcess is a node as a process.
type edgeProcess struct{ *node.Node }

func (e edgeProcess) take(f *config.File) error {
	cfg := f.Node()
	if err := e.SetTURN(cfg.TURN); err != nil {
		return err
	}
	if cfg.Fleet != nil {
		e.SetWeights(cfg.Fleet.Relays)
	}
	return nil
}
