package node

import (
	"bytes"
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"epcscf/cmd/internal/testpki"
)

// A tool that renews certificates and signals nobody is noticed too.
func TestCertificateFilesAreWatched(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		ca := testpki.NewCA(t, dir)
		ca.Issue(t, dir, "edge", time.Now().Add(24*time.Hour), "edge.test")
		c, err := LoadCertificate(filepath.Join(dir, "edge.pem"), filepath.Join(dir, "edge.key"), time.Now())
		if err != nil {
			t.Fatal(err)
		}
		var log bytes.Buffer
		shown := showCertificates(Config{Certificate: c, Relay: &Relay{Certificate: c}}, prometheus.NewRegistry())
		ctx, stop := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() {
			shown.watch(ctx, slog.New(slog.NewTextHandler(&log, nil)))
			close(ended)
		}()
		next := ca.Issue(t, dir, "edge", time.Now().Add(48*time.Hour), "edge.test")
		time.Sleep(pollCertificates + time.Second)
		if !c.Leaf().Equal(next) || c.broken.Load() {
			t.Error("the renewed certificate is not shown")
		}
		// One of two files is written before the other: the old pair stays until both fit.
		if err := os.WriteFile(filepath.Join(dir, "edge.key"), nil, 0o600); err != nil {
			t.Fatal(err)
		}
		time.Sleep(3 * pollCertificates)
		if !c.Leaf().Equal(next) || !c.broken.Load() {
			t.Error("a broken pair must leave what is shown, and be told")
		}
		last := ca.Issue(t, dir, "edge", time.Now().Add(72*time.Hour), "edge.test")
		time.Sleep(pollCertificates + time.Second)
		if !c.Leaf().Equal(last) || c.broken.Load() {
			t.Error("the pair that fits again is not shown")
		}
		stop()
		<-ended
		if said := log.String(); strings.Count(said, "certificate not taken") != 1 || strings.Count(said, "certificate renewed") != 2 || strings.Count(said, "expires soon") != 2 {
			t.Errorf("log, of both parts:\n%s", said)
		}
	})
}
