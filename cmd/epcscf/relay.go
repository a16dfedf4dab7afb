package main

import (
	"log/slog"

	"github.com/spf13/cobra"

	"epcscf/cmd/internal/config"
	"epcscf/cmd/internal/node"
)

// defaultRelayConfig is where a package would put the file.
const defaultRelayConfig = "/etc/epcscf/relay.yaml"

func newRelayCommand() *cobra.Command {
	var file string
	c := &cobra.Command{
		Use:   "relay",
		Short: "Run a TURN relay alone, for edges elsewhere",
		Long: `Run a TURN relay in a process of its own, from one configuration file: "epcscf config
--relay" prints all that it may hold, "epcscf check --relay" checks it. Edges give it
credentials at its credential interface, and name it in their turn.relays. What it was
told it still knows after a restart, whether an edge is there or not.

SIGHUP reads the certificates again, and keys, tokens.keys, relay.draining and log.level;
the rest waits for a restart. SIGTERM turns readiness red, ends the allocations and ends.`,
		Args: noArgs,
		RunE: func(c *cobra.Command, _ []string) error { return runRelay(c, file) },
	}
	c.Flags().StringVarP(&file, "config", "c", defaultRelayConfig, "configuration file")
	return c
}

func runRelay(c *cobra.Command, file string) error {
	load := func() (*config.File, error) { return config.LoadRelay(file) }
	return runProcess(c, load, func(f *config.File, log *slog.Logger) (process, error) {
		cfg := f.Relay()
		cfg.Logger = log
		n, err := node.ListenRelay(cfg)
		if err != nil {
			return nil, err
		}
		return relayProcess{n}, nil
	})
}

// relayProcess is a relay as a process.
type relayProcess struct{ *node.RelayNode }

func (r relayProcess) take(f *config.File) error {
	cfg := f.Relay()
	return r.Set(cfg.TURN, cfg.Draining)
}
