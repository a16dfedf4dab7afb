package main

import (
	"github.com/spf13/cobra"

	"epcscf/cmd/internal/config"
)

func newConfigCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "config",
		Short: "Print the annotated default configuration",
		Long: `Print the configuration file of epcscf serve with every key, its default and one
line of explanation. It loads as it is printed once the files that it names are there.`,
		Args: noArgs,
		RunE: func(c *cobra.Command, _ []string) error { return config.Print(c.OutOrStdout()) },
	}
}
