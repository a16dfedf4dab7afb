// Command wic is a WebRTC IMS client without a browser, for smoke tests: it registers at
// an eP-CSCF over secure WebSocket, shows the TURN credential that it gets, renews it,
// and checks that it works at every TURN URI.
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
)

// version is set by the build.
var version = "devel"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// Exit codes.
const (
	exitOK     = 0
	exitFailed = 1 // what was tried did not work
	exitUsage  = 2 // the command line is wrong: nothing was tried
)

// failure marks an error of the work itself; cobra's own are about the command line.
type failure struct{ error }

func (f failure) Unwrap() error { return f.error }

// run is main without the process.
func run(ctx context.Context, args []string, out, errOut io.Writer) int {
	root := newRootCommand()
	root.SetArgs(args)
	root.SetOut(out)
	root.SetErr(errOut)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return exitOK
	}
	_, _ = fmt.Fprintln(errOut, "wic:", err)
	if f := (failure{}); errors.As(err, &f) {
		return exitFailed
	}
	_, _ = fmt.Fprintln(errOut, `wic: "wic --help" says more`)
	return exitUsage
}

func newRootCommand() *cobra.Command {
	var s settings
	root := &cobra.Command{
		Use:   "wic",
		Short: "A WebRTC IMS client without a browser, for smoke tests",
		Long: `A WebRTC IMS client without a browser, for smoke tests of an eP-CSCF and its relay.

Each command registers over secure WebSocket, does its work and de-registers.
Exit status: 0 all is well, 1 something failed (standard error says what, where and
what would be right), 2 the command line is wrong.`,
		Example: `  wic register    --user alice --password-file alice.pw --ca epcscf-demo/ca.pem
  wic relay-check --user alice --password-file alice.pw --ca epcscf-demo/ca.pem --json`,
		Version:       version,
		Args:          cobra.NoArgs,
		SilenceUsage:  true,
		SilenceErrors: true,
		RunE: func(c *cobra.Command, _ []string) error {
			return errors.New("say what to do: register, options or relay-check")
		},
	}
	root.CompletionOptions.HiddenDefaultCmd = true
	s.flags(root)
	root.AddCommand(newRegisterCommand(&s), newOptionsCommand(&s), newRelayCheckCommand(&s))
	return root
}
