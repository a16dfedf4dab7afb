package main

import (
	"context"
	"crypto/tls"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"
)

// TestEdgeStartsWithoutItsDatabase: an edge that starts while the database is away registers
// WICs and hands out credentials; the WAF beside it follows when the database is back.
func TestEdgeStartsWithoutItsDatabase(t *testing.T) {
	t.Parallel()
	w := startChaosWorld(t, time.Minute, "info")
	if err := w.db.Kill(); err != nil {
		t.Fatal(err)
	}
	e := w.edges[0]
	e.restart(t, "serve", 0)
	ctx, cancel := context.WithCancel(t.Context())
	wait := w.start(ctx, 10, 10)
	started := time.Now()
	e.eventually(t, "credentials without the database", func() bool { return w.allIssue(started) })
	cancel()
	wait()
	if w.failures.Load()+w.lost.Load() > 0 {
		t.Error(strings.Join(w.problems, "\n"))
	}
	web := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: w.roots}, DisableKeepAlives: true}}
	hasKey := func() bool {
		res, err := web.Get("https://" + e.login + "/jwks")
		if err != nil {
			return false
		}
		defer func() { _ = res.Body.Close() }()
		body, err := io.ReadAll(res.Body)
		return err == nil && strings.Contains(string(body), "Ed25519")
	}
	if hasKey() {
		t.Error("the WAF has a key without its database")
	}
	if err := w.db.Up(); err != nil {
		t.Fatal(err)
	}
	e.eventually(t, "the WAF has its key", hasKey)
}
