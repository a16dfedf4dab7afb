package main

import (
	"github.com/spf13/cobra"

	"epcscf/cmd/internal/config"
)

func newConfigCommand() *cobra.Command {
	var relay bool
	c := &cobra.Command{
		Use:   "config",
		Short: "Print the annotated default configuration",
		Long: `Print the configuration file of epcscf serve, or of epcscf relay, with every key, its
default and one line of explanation. It loads as it is printed once the files that it
names are there.`,
		Args: noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if relay {
				return config.PrintRelay(c.OutOrStdout())
			}
			return config.Print(c.OutOrStdout())
		},
	}
	c.Flags().BoolVar(&relay, "relay", false, "the file of epcscf relay")
	return c
}
