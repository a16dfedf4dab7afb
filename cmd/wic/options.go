package main

import (
	"context"

	"github.com/spf13/cobra"
)

func newOptionsCommand(s *settings) *cobra.Command {
	var showPassword bool
	c := &cobra.Command{
		Use:   "options",
		Short: "Register, ask for a new TURN credential by OPTIONS and print it",
		Long: `Register, ask for a new TURN credential by OPTIONS, as a WIC does before the old one
ends (TS 33.203 X.5.2.1), print it, and de-register. The password is printed only with
--show-password, in text as in JSON.`,
		Args: cobra.NoArgs,
		RunE: withSession(s, func(ctx context.Context, c *cobra.Command, ses *session) error {
			limited, cancel := context.WithTimeout(ctx, s.timeout)
			defer cancel()
			cred, err := ses.Options(limited)
			if err != nil {
				return err
			}
			return newCredentialReport(ses.reg, cred, showPassword).print(c.OutOrStdout(), s.json)
		}),
	}
	c.Flags().BoolVar(&showPassword, "show-password", false, showHelp)
	return c
}
