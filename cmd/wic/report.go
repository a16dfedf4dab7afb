package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"epcscf/cmd/wic/internal/client"
	"epcscf/sipext"
)

// credentialReport is a credential as it is printed.
type credentialReport struct {
	AOR        string   `json:"aor"`
	Registered int      `json:"registered_seconds"`
	Associated []string `json:"associated_uris,omitempty"`
	Username   string   `json:"username"`
	Password   string   `json:"password,omitempty"` // only with --show-password
	Realm      string   `json:"realm"`
	URIs       []string `json:"uris"`
	TTL        int      `json:"ttl_seconds"`
	Expires    string   `json:"expires"` // by the server's clock
	Approach   string   `json:"approach,omitempty"`
}

func newCredentialReport(reg client.Registration, c sipext.TurnCred, showPassword bool) credentialReport {
	r := credentialReport{
		AOR: reg.AOR, Registered: int(reg.Expires / time.Second), Associated: reg.Associated,
		Username: c.Username, Realm: c.Realm, URIs: c.URIs, TTL: int(c.TTL / time.Second),
		Expires: time.Unix(c.Texp, 0).UTC().Format(time.RFC3339), Approach: c.Approach,
	}
	if showPassword {
		r.Password = c.Tpwd
	}
	return r
}

func (r credentialReport) print(w io.Writer, asJSON bool) error {
	if asJSON {
		return printJSON(w, r)
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	row := func(name string, value any) { _, _ = fmt.Fprintf(t, "%s\t%v\n", name, value) }
	row("registered", fmt.Sprintf("%s for %d s", r.AOR, r.Registered))
	row("username", r.Username)
	row("password", cmp.Or(r.Password, "(hidden; --show-password prints it)"))
	row("realm", r.Realm)
	for i, u := range r.URIs {
		name := ""
		if i == 0 {
			name = "uris"
		}
		row(name, u)
	}
	row("ttl", fmt.Sprintf("%d s, until %s", r.TTL, r.Expires))
	row("approach", r.Approach)
	return t.Flush()
}

func printJSON(w io.Writer, v any) error {
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	return enc.Encode(v)
}
