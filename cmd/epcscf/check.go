package main

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"epcscf/cmd/internal/config"
)

// defaultConfig is where a package would put the file.
const defaultConfig = "/etc/epcscf/epcscf.yaml"

func newCheckCommand() *cobra.Command {
	var file string
	c := &cobra.Command{
		Use:   "check",
		Short: "Check a configuration file, and the files that it names",
		Long: `Check a configuration file, and the keys and certificates that it names, without
opening a socket. All that is wrong is printed, a line each, with its place and what to
write instead; the exit code is then 2.`,
		Args: noArgs,
		RunE: func(c *cobra.Command, _ []string) error { return runCheck(c, file) },
	}
	c.Flags().StringVarP(&file, "config", "c", defaultConfig, "configuration file")
	return c
}

func runCheck(c *cobra.Command, file string) error {
	f, err := config.Load(file, "")
	var faults config.Faults
	if errors.As(err, &faults) {
		return usageError{everyFault{faults}}
	}
	if err != nil {
		return err
	}
	out := c.OutOrStdout()
	for _, note := range f.Notes() {
		if _, err := fmt.Fprintf(out, "%s: note: %s\n", file, note); err != nil {
			return err
		}
	}
	_, err = fmt.Fprintf(out, "%s: ok\n", file)
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
