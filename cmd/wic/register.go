package main

import (
	"context"
	"time"

	"github.com/spf13/cobra"
)

const showHelp = "print the TURN password too, in text and in JSON"

func newRegisterCommand(s *settings) *cobra.Command {
	var showPassword, keep bool
	c := &cobra.Command{
		Use:   "register",
		Short: "Register and print the TURN credential",
		Long: `Register, print the TURN credential of the 200 OK, and de-register.

The password is printed only with --show-password, in text as in JSON: output lands in
logs and tickets. The de-registration takes the credential back at once, so to use it in
another program, such as turnutils_uclient, add --keep: wic then stays registered, and
refreshes its registration, until Ctrl-C or SIGTERM.`,
		Example: `  wic register --user alice --password-file alice.pw --json --show-password --keep`,
		Args:    cobra.NoArgs,
		RunE: withSession(s, func(ctx context.Context, c *cobra.Command, ses *session) error {
			err := newCredentialReport(ses.reg, ses.cred, showPassword).print(c.OutOrStdout(), s.json)
			if err != nil || !keep {
				return err
			}
			return ses.keep(ctx)
		}),
	}
	c.Flags().BoolVar(&showPassword, "show-password", false, showHelp)
	c.Flags().BoolVar(&keep, "keep", false, "stay registered until Ctrl-C, so that the credential stays good")
	return c
}

// keep refreshes the registration at half of its life until ctx ends, which is no error.
func (ses *session) keep(ctx context.Context) error {
	for {
		refresh := time.NewTimer(ses.reg.Expires / 2)
		select {
		case <-ctx.Done():
			refresh.Stop()
			return nil
		case <-ses.Done():
			refresh.Stop()
			return ses.Err()
		case <-refresh.C:
		}
		limited, cancel := context.WithTimeout(ctx, ses.settings.timeout)
		reg, _, err := ses.Register(limited)
		cancel()
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return err
		}
		ses.reg = reg
	}
}
