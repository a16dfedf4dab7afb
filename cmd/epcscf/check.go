package main

import (
	"cmp"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"epcscf/cmd/internal/config"
)

// defaultConfig is where a package would put the file.
const defaultConfig = "/etc/epcscf/epcscf.yaml"

func newCheckCommand() *cobra.Command {
	var file string
	var relay bool
	c := &cobra.Command{
		Use:   "check",
		Short: "Check a configuration file, and the files that it names",
		Long: `Check a configuration file, and the keys and certificates that it names, without
opening a socket. All that is wrong is printed, a line each, with its place and what to
write instead; the exit code is then 2.`,
		Args: noArgs,
		RunE: func(c *cobra.Command, _ []string) error { return runCheck(c, file, relay) },
	}
	c.Flags().StringVarP(&file, "config", "c", "", "configuration file (default \""+defaultConfig+"\", with --relay \""+defaultRelayConfig+"\")")
	c.Flags().BoolVar(&relay, "relay", false, "the file is that of epcscf relay")
	return c
}

func runCheck(c *cobra.Command, file string, relay bool) error {
	load := func() (*config.File, error) { return config.Load(cmp.Or(file, defaultConfig), "") }
	if relay {
		load = func() (*config.File, error) { return config.LoadRelay(cmp.Or(file, defaultRelayConfig)) }
	}
	f, err := load()
	var faults config.Faults
	if errors.As(err, &faults) {
		return usageError{everyFault{faults}}
	}
	if err != nil {
		return err
	}
	out := c.OutOrStdout()
	for _, note := range f.Notes() {
		if _, err := fmt.Fprintf(out, "%s: note: %s\n", f.Name, note); err != nil {
			return err
		}
	}
	_, err = fmt.Fprintf(out, "%s: ok\n", f.Name)
	return err
}

// everyFault prints all of them, where Faults prints the first.
type everyFault struct{ config.Faults }

// Error implements error.
func (e everyFault) Error() string {
	errs := make([]error, len(e.Faults))
	for i, f := range e.Faults {
		errs[i] = f
	}
	return errors.Join(errs...).Error()
}
