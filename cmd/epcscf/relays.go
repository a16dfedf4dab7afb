package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"epcscf/store"
	"epcscf/turncred"
	"epcscf/turncred/push"
)

func newRelaysCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "relays",
		Short: "The registry of relays, from which edges with turn.registry take them",
		Long: `List and change the registry of relays in the store of the configuration, of kind postgres.
Edges whose file has turn.registry: true take a change within a second or two, without a
restart, beside what is in their turn.relays.`,
		Args: noArgs,
		RunE: func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	var file string
	c.PersistentFlags().StringVarP(&file, "config", "c", defaultConfig, "configuration file")

	var r store.Relay
	add := &cobra.Command{
		Use: "add NAME --address HOST:PORT --uri URI", Short: "Add a relay, or change one", Args: oneRelay,
		Example: `  epcscf relays add relay3 --address 10.0.0.8:8443 --uri "turns:relay3.ims.example:443?transport=tcp" --uri "turn:relay3.ims.example:3478?transport=udp"`,
		RunE: func(c *cobra.Command, args []string) error {
			r.Name = args[0]
			if err := checkRegistered(r); err != nil {
				return usageError{err}
			}
			return onRelay(c, file, "add", r.Name, func(ctx context.Context, s store.Store) error { return s.PutRelay(ctx, r) })
		},
	}
	fl := add.Flags()
	fl.StringVar(&r.Address, "address", "", "its credential interface: HOST:PORT")
	fl.StringArrayVar(&r.URIs, "uri", nil, "TURN URI for WICs, turns: first; may be repeated")
	fl.IntVar(&r.Weight, "weight", 100, "its share of the users")
	fl.StringVar(&r.Region, "region", "", "where it is")

	state := func(use, short string, to store.RelayState) *cobra.Command {
		return &cobra.Command{Use: use + " NAME", Short: short, Args: oneRelay,
			RunE: func(c *cobra.Command, args []string) error {
				return onRelay(c, file, use, args[0], func(ctx context.Context, s store.Store) error { return s.SetRelayState(ctx, args[0], to) })
			}}
	}
	c.AddCommand(add,
		&cobra.Command{Use: "list", Short: "List the relays, and which keys they have", Args: noArgs,
			RunE: func(c *cobra.Command, _ []string) error { return listRelays(c, file) }},
		state("drain", "Give a relay no new users; who is there goes on", store.RelayDraining),
		state("resume", "Give a relay new users again", store.RelayActive),
		&cobra.Command{Use: "remove NAME", Short: "Forget a relay", Args: oneRelay,
			RunE: func(c *cobra.Command, args []string) error {
				return onRelay(c, file, "remove", args[0], func(ctx context.Context, s store.Store) error { return s.DeleteRelay(ctx, args[0]) })
			}})
	return c
}

func oneRelay(c *cobra.Command, args []string) error {
	if len(args) == 1 && push.CheckPeerName(args[0]) == nil {
		return nil
	}
	return usageError{fmt.Errorf("want the name of one relay, of small letters, digits and hyphens: see %s --help", c.CommandPath())}
}

func checkRegistered(r store.Relay) error {
	switch {
	case len(r.URIs) == 0:
		return errors.New("--uri: want one or more, such as turn:relay3.ims.example:3478?transport=udp: WICs could not reach it")
	case slices.ContainsFunc(r.URIs, func(u string) bool { return !strings.HasPrefix(u, "turn:") && !strings.HasPrefix(u, "turns:") }):
		return fmt.Errorf("--uri %q: want turn: or turns: URIs (RFC 7065)", r.URIs)
	}
	if err := push.CheckAddress(r.Address); err != nil {
		return fmt.Errorf("--address %q: want HOST:PORT", r.Address)
	}
	return store.CheckRelay(r)
}

// onRelay changes a relay of the registry, says so, and records it.
func onRelay(c *cobra.Command, file, action, name string, do func(context.Context, store.Store) error) error {
	return withStore(c, file, func(ctx context.Context, s store.Store) error {
		if err := do(ctx, s); err != nil {
			return err
		}
		if err := record(ctx, s, "relay."+action, "relay/"+name); err != nil {
			return err
		}
		return println(c.OutOrStdout(), "relay", name+":", action)
	})
}

func listRelays(c *cobra.Command, file string) error {
	return withStore(c, file, func(ctx context.Context, s store.Store) error {
		all, err := s.Relays(ctx)
		if err != nil {
			return err
		}
		return table(c.OutOrStdout(), "RELAY\tSTATE\tWEIGHT\tREGION\tADDRESS\tSEEN\tKEYS\tURIS", all, func(r store.Relay) []any {
			seen := "never"
			if !r.LastSeen.IsZero() {
				seen = time.Since(r.LastSeen).Round(time.Second).String() + " ago"
			}
			return []any{r.Name, r.State, r.Weight, r.Region, r.Address, seen, join(r.Keys), strings.Join(r.URIs, " ")}
		})
	})
}

func join(ids []turncred.KeyID) string {
	var all []string
	for _, id := range ids {
		all = append(all, string(id))
	}
	return strings.Join(all, ",")
}
