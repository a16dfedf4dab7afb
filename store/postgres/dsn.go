package postgres

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"os"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

// ErrInsecure says that a connection to another host would not be safe.
var ErrInsecure = errors.New("unsafe connection to the database")

// CheckDSN reports what Open would refuse of a connection string.
func CheckDSN(dsn string, allowInsecure bool) error {
	_, err := ParseDSN(dsn, allowInsecure)
	return err
}

// ParseDSN reads a connection string and holds it to the rule: to another host, TLS with the
// server's name checked. Where it has no sslmode, it gets that one.
func ParseDSN(dsn string, allowInsecure bool) (*pgxpool.Config, error) {
	cfg, err := pgxpool.ParseConfig(dsn)
	if err != nil {
		return nil, errDSN
	}
	if !saysTLSMode(dsn) && !onlyLocal(cfg.ConnConfig) {
		if cfg, err = pgxpool.ParseConfig(withVerifyFull(dsn)); err != nil {
			return nil, errDSN
		}
	}
	if !allowInsecure {
		for _, h := range hosts(cfg.ConnConfig) {
			if !local(h.host) && !verified(h.tls) {
				return nil, fmt.Errorf("%w: %s is another host, and sslmode is below verify-full, so whoever is between could read and write: use sslmode=verify-full, with sslrootcert where its authority is your own", ErrInsecure, h.host)
			}
		}
	}
	switch cfg.ConnConfig.DefaultQueryExecMode {
	case pgx.QueryExecModeCacheStatement, pgx.QueryExecModeCacheDescribe, pgx.QueryExecModeDescribeExec:
	default:
		return nil, fmt.Errorf("connection string: default_query_exec_mode=%v quotes values into the text of statements, want cache_statement", cfg.ConnConfig.DefaultQueryExecMode)
	}
	return cfg, nil
}

// errDSN stands for what the parser says, which quotes the connection string: that may have
// the password.
var errDSN = errors.New("connection string: not understood: want postgres://USER@HOST/DATABASE?sslrootcert=FILE, or keywords as host=HOST dbname=DATABASE; a file that it names must be there")

// saysTLSMode reports whether the operator chose an sslmode.
func saysTLSMode(dsn string) bool {
	return strings.Contains(dsn, "sslmode=") || strings.Contains(dsn, "sslmode =") || os.Getenv("PGSSLMODE") != ""
}

func withVerifyFull(dsn string) string {
	if u, err := url.Parse(dsn); err == nil && (u.Scheme == "postgres" || u.Scheme == "postgresql") {
		q := u.Query()
		q.Set("sslmode", "verify-full")
		u.RawQuery = q.Encode()
		return u.String()
	}
	return dsn + " sslmode=verify-full"
}

// host is one that may be connected to.
type host struct {
	host string
	tls  *tls.Config
}

func hosts(c *pgx.ConnConfig) []host {
	hs := []host{{c.Host, c.TLSConfig}}
	for _, f := range c.Fallbacks {
		hs = append(hs, host{f.Host, f.TLSConfig})
	}
	return hs
}

func onlyLocal(c *pgx.ConnConfig) bool {
	for _, h := range hosts(c) {
		if !local(h.host) {
			return false
		}
	}
	return true
}

// local reports whether a host is a unix socket or this machine's loopback. The name
// localhost is it by RFC 6761 §6.3.
func local(name string) bool {
	if strings.HasPrefix(name, "/") || strings.HasPrefix(name, "@") || name == "localhost" {
		return true
	}
	if h, _, err := net.SplitHostPort(name); err == nil {
		name = h
	}
	ip, err := netip.ParseAddr(name)
	return err == nil && ip.Unmap().IsLoopback()
}

// verified reports whether the server's certificate and name are checked: of the modes,
// verify-full alone leaves that to crypto/tls.
func verified(c *tls.Config) bool {
	return c != nil && !c.InsecureSkipVerify && c.ServerName != ""
}
