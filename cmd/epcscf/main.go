// Command epcscf is an eP-CSCF with its own TURN relay: a secure-WebSocket SIP edge for
// IMS that gives WebRTC clients the TURN credentials they need.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"epcscf/internal/gctune"
)

func main() {
	gctune.Start()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// usageError is an error of the command line: exit 2. Any other ends with 1.
type usageError struct{ error }

// noArgs refuses arguments; on the root command, that is an unknown subcommand.
func noArgs(c *cobra.Command, args []string) error {
	switch {
	case len(args) == 0:
		return nil
	case c.HasParent():
		return usageError{fmt.Errorf("%s takes no argument, but got %q: see %s --help", c.CommandPath(), args[0], c.CommandPath())}
	}
	return usageError{fmt.Errorf("unknown command %q: see %s --help", args[0], c.CommandPath())}
}

// run is main without the process: it returns the exit code.
func run(ctx context.Context, args []string, out, errOut io.Writer) int {
	root := &cobra.Command{
		Use:          "epcscf",
		Short:        "An eP-CSCF: a secure-WebSocket SIP edge for IMS that provisions TURN credentials",
		Args:         noArgs,
		RunE:         func(c *cobra.Command, _ []string) error { return c.Help() },
		SilenceUsage: true, SilenceErrors: true,
	}
	root.SetFlagErrorFunc(func(c *cobra.Command, err error) error {
		return usageError{fmt.Errorf("%w: see %s --help", err, c.CommandPath())}
	})
	root.CompletionOptions.HiddenDefaultCmd = true
	root.AddCommand(newServeCommand(), newRelayCommand(), newCheckCommand(), newConfigCommand(), newDemoCommand(), newKeysCommand(), newMigrateCommand(), newPKICommand(), newRelaysCommand(), newWAFCommand(), newVersionCommand())
	root.SetArgs(args)
	root.SetOut(out)
	root.SetErr(errOut)

	err := root.ExecuteContext(ctx)
	if err == nil {
		return 0
	}
	_, _ = fmt.Fprintln(errOut, "epcscf:", err)
	if errors.As(err, new(usageError)) {
		return 2
	}
	return 1
}
