package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"epcscf/cmd/wic/internal/turncheck"
	"epcscf/turncred"
)

func newRelayCheckCommand(s *settings) *cobra.Command {
	return &cobra.Command{
		Use:   "relay-check",
		Short: "Register and send a datagram through the relay, over every TURN URI",
		Long: `Register, and with the TURN credential make two allocations at each URI of it, send a
datagram from the one through the relay to the other and back, and print the URI, the
times and the result. Then de-register. Exit status 1 if any URI fails.`,
		Args: cobra.NoArgs,
		RunE: withSession(s, func(ctx context.Context, c *cobra.Command, ses *session) error {
			if len(ses.cred.URIs) == 0 {
				return errors.New("the credential names no TURN URI: there is nothing to check")
			}
			cred := turncheck.Credential{
				Username: ses.cred.Username, Password: turncred.NewSecret([]byte(ses.cred.Tpwd)),
				Realm: turncred.Realm(ses.cred.Realm),
			}
			report := relayReport{AOR: ses.reg.AOR, Username: cred.Username, Approach: ses.cred.Approach}
			for _, uri := range ses.cred.URIs {
				limited, cancel := context.WithTimeout(ctx, s.timeout)
				report.add(turncheck.Check(limited, uri, cred, ses.cfg.Roots))
				cancel()
			}
			if err := report.print(c.OutOrStdout(), s.json); err != nil {
				return err
			}
			if n := report.failed(); n > 0 {
				return fmt.Errorf("%d of %d TURN URIs failed", n, len(report.Checks))
			}
			return nil
		}),
	}
}

// relayReport is the outcome of relay-check as it is printed.
type relayReport struct {
	AOR      string      `json:"aor"`
	Username string      `json:"username"`
	Approach string      `json:"approach,omitempty"`
	Checks   []uriReport `json:"checks"`
}

type uriReport struct {
	URI       string  `json:"uri"`
	OK        bool    `json:"ok"`
	Relayed   string  `json:"relayed,omitempty"`
	Allocate  float64 `json:"allocate_ms,omitempty"`
	RoundTrip float64 `json:"round_trip_ms,omitempty"`
	Error     string  `json:"error,omitempty"`
}

func (r *relayReport) add(res turncheck.Result) {
	u := uriReport{
		URI: res.URI, OK: res.Err == nil, Relayed: res.Relayed,
		Allocate: milliseconds(res.Allocate), RoundTrip: milliseconds(res.RoundTrip),
	}
	if res.Err != nil {
		u.Error = res.Err.Error()
	}
	r.Checks = append(r.Checks, u)
}

// milliseconds rounds to microseconds.
func milliseconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

func (r *relayReport) failed() (n int) {
	for _, u := range r.Checks {
		if !u.OK {
			n++
		}
	}
	return n
}

func (r *relayReport) print(w io.Writer, asJSON bool) error {
	if asJSON {
		return printJSON(w, r)
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, u := range r.Checks {
		if u.OK {
			_, _ = fmt.Fprintf(t, "ok\t%s\trelayed %s\tallocated in %.1f ms\tround trip %.1f ms\n", u.URI, u.Relayed, u.Allocate, u.RoundTrip)
		} else {
			_, _ = fmt.Fprintf(t, "FAIL\t%s\t%s\n", u.URI, u.Error)
		}
	}
	return t.Flush()
}
