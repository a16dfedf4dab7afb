package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"

	"github.com/spf13/cobra"

	"epcscf/cmd/internal/config"
	"epcscf/cmd/internal/node"
	"epcscf/store"
	"epcscf/turncred"
	"epcscf/waf"
)

func newWAFCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "waf",
		Short: "Who may sign in at the OAuth authorization server, and from which pages",
		Long: `Add and list the clients, the users and the lent identities of the OAuth authorization
server (WAF). They stand in the store of the configuration, which must outlive a process.`,
		Args: noArgs,
		RunE: func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	var file string
	c.PersistentFlags().StringVarP(&file, "config", "c", defaultConfig, "configuration file")
	c.AddCommand(newWAFClientCommand(&file), newWAFUserCommand(&file), newWAFIdentityCommand(&file))
	return c
}

// group is a command that has only others below it.
func group(use, short string, below ...*cobra.Command) *cobra.Command {
	c := &cobra.Command{Use: use, Short: short, Args: noArgs, RunE: func(c *cobra.Command, _ []string) error { return c.Help() }}
	c.AddCommand(below...)
	return c
}

// withStore opens the configured store for f.
func withStore(c *cobra.Command, file string, f func(context.Context, store.Store) error) error {
	cfg, err := config.Load(file, "")
	if err != nil {
		return usageError{err}
	}
	where := cfg.Store()
	if where.Kind == node.StoreMemory {
		return usageError{fmt.Errorf("%s: store.kind is memory, which would forget this at once: use %s or %s", file, node.StoreBolt, node.StorePostgres)}
	}
	s, err := node.OpenStore(c.Context(), where, slog.New(slog.DiscardHandler))
	if err != nil {
		return err
	}
	return errors.Join(f(c.Context(), s), s.Close())
}

// record adds to the audit trail what an operator did.
func record(ctx context.Context, s store.Store, action, object string) error {
	return s.Record(ctx, store.Event{Actor: "operator", Action: action, Object: object})
}

func newWAFClientCommand(file *string) *cobra.Command {
	var n waf.NewClient
	add := &cobra.Command{
		Use:   "add --name NAME --redirect-uri URI",
		Short: "Register a client; a confidential one's secret is printed, once",
		Example: `  epcscf waf client add --name "Phone" --redirect-uri https://phone.example/
  epcscf waf client add --name "Web server" --confidential --grant client_credentials --vouches
  epcscf waf client add --name edge1 --confidential --grant client_credentials --introspects`,
		Args: noArgs,
		RunE: func(c *cobra.Command, _ []string) error { return addClient(c, *file, n) },
	}
	fl := add.Flags()
	fl.StringVar(&n.ID, "id", "", "client id; default: a random one")
	fl.StringVar(&n.Name, "name", "", "name that users see when they consent")
	fl.StringArrayVar(&n.RedirectURIs, "redirect-uri", nil, "where the browser may return to, exactly; may be repeated")
	fl.StringSliceVar(&n.GrantTypes, "grant", []string{"authorization_code", "refresh_token"}, "grant types: authorization_code, refresh_token, client_credentials, implicit")
	fl.StringSliceVar(&n.Scopes, "scope", []string{waf.ScopeSTUN, waf.ScopeRegistration}, "scopes that it may ask for")
	fl.StringSliceVar(&n.Audiences, "aud", nil, "TURN servers that it may ask for; default: all")
	fl.BoolVar(&n.Confidential, "confidential", false, "it keeps a secret: a server, not a page")
	fl.StringVar(&n.WWSF, "wwsf", "", "identity of its web server in tokens; default: the client id")
	fl.BoolVar(&n.Vouches, "vouches", false, "it may name a user in client_credentials, whom it has authenticated itself")
	fl.StringVar(&n.Class, "class", "", "pool of identities for users whom it does not name")
	fl.BoolVar(&n.Introspects, "introspects", false, "it may ask whether tokens are good: an eP-CSCF")

	var life time.Duration
	invite := &cobra.Command{
		Use:   "invite",
		Short: "Print an initial access token, with which one client can register itself (RFC 7591)",
		Args:  noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if life <= 0 {
				return usageError{fmt.Errorf("--life %v: want more than 0", life)}
			}
			return withStore(c, *file, func(ctx context.Context, s store.Store) error {
				secret, err := waf.NewInitialAccess(ctx, s, time.Now().Add(life))
				if err != nil {
					return err
				}
				return errors.Join(record(ctx, s, "client.invite", ""), println(c.OutOrStdout(), secret))
			})
		},
	}
	invite.Flags().DurationVar(&life, "life", 24*time.Hour, "how long it is good")

	list := &cobra.Command{
		Use: "list", Short: "List the clients", Args: noArgs,
		RunE: func(c *cobra.Command, _ []string) error { return listClients(c, *file) },
	}
	return group("client", "Pages and servers that may ask for tokens", add, list, invite)
}

func println(out io.Writer, a ...any) error {
	_, err := fmt.Fprintln(out, a...)
	return err
}

func addClient(c *cobra.Command, file string, n waf.NewClient) error {
	rec, secret, err := n.Record()
	if err != nil {
		return usageError{err}
	}
	return withStore(c, file, func(ctx context.Context, s store.Store) error {
		if err := s.AddClient(ctx, rec); err != nil {
			return err
		}
		if err := record(ctx, s, "client.add", "client/"+rec.ID); err != nil {
			return err
		}
		if err := println(c.OutOrStdout(), "client_id", rec.ID); err != nil || secret.Len() == 0 {
			return err
		}
		return println(c.OutOrStdout(), "client_secret", string(secret.Reveal()))
	})
}

func listClients(c *cobra.Command, file string) error {
	return withStore(c, file, func(ctx context.Context, s store.Store) error {
		all, err := s.Clients(ctx)
		if err != nil {
			return err
		}
		return table(c.OutOrStdout(), "CLIENT\tNAME\tKIND\tGRANTS\tSCOPES\tREDIRECT URIS", all, func(k store.Client) []any {
			kind := "public"
			if k.SecretHash.Len() > 0 {
				kind = "confidential"
			}
			return []any{k.ID, k.Name, kind + disabled(k.Disabled), strings.Join(k.GrantTypes, ","), strings.Join(k.Scopes, ","), strings.Join(k.RedirectURIs, " ")}
		})
	})
}

func disabled(is bool) string {
	if is {
		return ", disabled"
	}
	return ""
}

// table writes rows under a head.
func table[T any](out io.Writer, head string, rows []T, cells func(T) []any) error {
	w := tabwriter.NewWriter(out, 0, 8, 2, ' ', 0)
	_, err := fmt.Fprintln(w, head)
	for _, row := range rows {
		var line []string
		for _, cell := range cells(row) {
			line = append(line, printable(fmt.Sprint(cell)))
		}
		_, e := fmt.Fprintln(w, strings.Join(line, "\t"))
		err = errors.Join(err, e)
	}
	return errors.Join(err, w.Flush())
}

// printable keeps names that others chose from writing to the operator's terminal what is
// no text.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return '?'
		}
		return r
	}, s)
}

func newWAFUserCommand(file *string) *cobra.Command {
	var n waf.NewUser
	var impi, passwordFile string
	var provider bool
	add := &cobra.Command{
		Use:   "add NAME --impi IMPI --impu URI --password-file FILE",
		Short: "Add a user",
		Example: `  epcscf waf user add alice --impi alice@ims.example --impu sip:alice@ims.example --password-file alice.pw
  epcscf waf user add guest --class guests --password-file guest.pw`,
		Args: func(c *cobra.Command, args []string) error {
			if len(args) != 1 {
				return usageError{errors.New("want one user name: see epcscf waf user add --help")}
			}
			return nil
		},
		RunE: func(c *cobra.Command, args []string) error {
			n.Name, n.IMPI = args[0], turncred.IMPI(impi)
			if provider == (passwordFile != "") {
				return usageError{errors.New("want either --password-file or --provider-only")}
			}
			if passwordFile != "" {
				password, err := node.ReadPassword(passwordFile)
				if err != nil {
					return fmt.Errorf("--password-file: %w", err)
				}
				n.Password = password
			}
			return addUser(c, *file, n)
		},
	}
	fl := add.Flags()
	fl.StringVar(&impi, "impi", "", "private identity that he registers with")
	fl.StringArrayVar(&n.IMPUs, "impu", nil, "public identity, sip: or tel:, the default one first; may be repeated")
	fl.StringVar(&n.Class, "class", "", "pool that lends him an identity, in place of --impi")
	fl.StringVar(&passwordFile, "password-file", "", "file of mode 0600 with the password")
	fl.BoolVar(&provider, "provider-only", false, "he has no password here, and signs in at the OpenID Connect provider")

	list := &cobra.Command{
		Use: "list", Short: "List the users", Args: noArgs,
		RunE: func(c *cobra.Command, _ []string) error { return listUsers(c, *file) },
	}
	return group("user", "Local accounts", add, list)
}

func addUser(c *cobra.Command, file string, n waf.NewUser) error {
	rec, err := n.Record(waf.NewHasher())
	if err != nil {
		return usageError{err}
	}
	return withStore(c, file, func(ctx context.Context, s store.Store) error {
		if err := s.AddUser(ctx, rec); err != nil {
			return err
		}
		return record(ctx, s, "user.add", "user/"+rec.Name)
	})
}

func listUsers(c *cobra.Command, file string) error {
	return withStore(c, file, func(ctx context.Context, s store.Store) error {
		all, err := s.Users(ctx)
		if err != nil {
			return err
		}
		return table(c.OutOrStdout(), "USER\tSIGNS IN\tIMPI\tIMPUS\tCLASS", all, func(u store.User) []any {
			how := "by password"
			if u.PasswordHash.Len() == 0 {
				how = "at the provider"
			}
			return []any{u.Name, how + disabled(u.Disabled), u.IMPI, strings.Join(u.IMPUs, " "), u.Class}
		})
	})
}

func newWAFIdentityCommand(file *string) *cobra.Command {
	var id store.LentIdentity
	var impi string
	add := &cobra.Command{
		Use:     "add --class CLASS --impi IMPI --impu URI",
		Short:   "Put an identity into a pool",
		Example: "  epcscf waf identity add --class guests --impi guest1@ims.example --impu sip:guest1@ims.example",
		Args:    noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			id.IMPI = turncred.IMPI(impi)
			if id.Class == "" || id.IMPI == "" || len(id.IMPUs) == 0 {
				return usageError{errors.New("want --class, --impi and --impu")}
			}
			return withStore(c, *file, func(ctx context.Context, s store.Store) error {
				if err := s.AddIdentity(ctx, id); err != nil {
					return err
				}
				return record(ctx, s, "identity.add", "identity/"+impi)
			})
		},
	}
	add.Flags().StringVar(&id.Class, "class", "", "the pool")
	add.Flags().StringVar(&impi, "impi", "", "private identity")
	add.Flags().StringArrayVar(&id.IMPUs, "impu", nil, "public identity, sip: or tel:; may be repeated")
	list := &cobra.Command{
		Use: "list", Short: "List the identities, and until when they are lent", Args: noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			return withStore(c, *file, func(ctx context.Context, s store.Store) error {
				all, err := s.Identities(ctx, "")
				if err != nil {
					return err
				}
				now := time.Now()
				return table(c.OutOrStdout(), "CLASS\tIMPI\tIMPUS\tLENT UNTIL", all, func(id store.LentIdentity) []any {
					lent := "free"
					if id.Until.After(now) {
						lent = id.Until.UTC().Format(time.RFC3339)
					}
					return []any{id.Class, id.IMPI, strings.Join(id.IMPUs, " "), lent}
				})
			})
		},
	}
	return group("identity", "Identities that are lent to users without one", add, list)
}
