package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"epcscf/cmd/internal/config"
	"epcscf/cmd/internal/node"
	"epcscf/wic"
)

// serveFlags are the flags of epcscf serve.
type serveFlags struct{ file, approach string }

func newServeCommand() *cobra.Command {
	var s serveFlags
	c := &cobra.Command{
		Use:   "serve",
		Short: "Run edge and relay before a real core, from a configuration file",
		Long: `Run the eP-CSCF and its TURN relay before a real core, from one configuration file:
"epcscf config" prints all that it may hold, "epcscf check" checks it.

SIGHUP reads the certificates again, and turn.approach, keys, tokens.keys and
log.level; the rest waits for a restart. Certificates whose files change are read again without it. SIGTERM
turns readiness red, closes the WebSockets with 1001 and ends.`,
		Args: noArgs,
		RunE: func(c *cobra.Command, _ []string) error { return runServe(c, s) },
	}
	fl := c.Flags()
	fl.StringVarP(&s.file, "config", "c", defaultConfig, "configuration file")
	fl.StringVar(&s.approach, "turn-approach", "", "how TURN credentials come about, in place of turn.approach: shared-key or push")
	return c
}

func runServe(c *cobra.Command, s serveFlags) error {
	hangUp := make(chan os.Signal, 1) // from the start: SIGHUP would end a process that does not ask for it
	signal.Notify(hangUp, syscall.SIGHUP)
	defer signal.Stop(hangUp)
	f, err := config.Load(s.file, s.approach)
	if err != nil {
		return usageError{err}
	}
	level := &slog.LevelVar{}
	level.Set(f.LogLevel)
	log := newLogger(c.ErrOrStderr(), f.LogFormat, level)
	cfg := f.Node()
	cfg.Logger = log
	if f.Page {
		if cfg.Page, err = wic.NewHandler(wic.PageConfig{Domain: cfg.Proxy.Domain, TURNApproach: string(cfg.TURN.Approach)}); err != nil {
			return err
		}
	}
	for _, note := range f.Notes() {
		log.Warn("configuration", "note", note)
	}
	n, err := node.Listen(cfg)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(c.Context())
	reloaded := make(chan struct{})
	go func() {
		defer close(reloaded)
		(&reloads{s, n, f, level, log}).run(ctx, hangUp)
	}()
	err = n.Run(ctx)
	cancel()
	<-reloaded
	return err
}

// newLogger writes log lines to w; the format has been checked.
func newLogger(w io.Writer, format string, level slog.Leveler) *slog.Logger {
	o := &slog.HandlerOptions{Level: level}
	if format == "json" {
		return slog.New(slog.NewJSONHandler(w, o))
	}
	return slog.New(slog.NewTextHandler(w, o))
}

// reloads answers SIGHUP.
type reloads struct {
	flags serveFlags
	node  *node.Node
	now   *config.File // what runs
	level *slog.LevelVar
	log   *slog.Logger
}

func (r *reloads) run(ctx context.Context, hangUp <-chan os.Signal) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-hangUp:
			r.now = r.reload()
		}
	}
}

// reload takes what a running node can, and returns the file that runs from now on: a file
// that is wrong changes nothing.
func (r *reloads) reload() *config.File {
	r.node.ReloadCertificates()
	next, err := config.Load(r.flags.file, r.flags.approach)
	if err != nil {
		var faults config.Faults
		if errors.As(err, &faults) {
			err = everyFault{faults}
		}
		r.log.Error("configuration not reloaded: what ran goes on", "err", strings.ReplaceAll(err.Error(), "\n", "; "))
		return r.now
	}
	if err := r.node.SetTURN(next.Node().TURN); err != nil {
		r.log.Error("configuration not reloaded: what ran goes on", "err", err)
		return r.now
	}
	r.level.Set(next.LogLevel)
	taken, waiting := next.Changed(r.now)
	r.log.Info("configuration reloaded", "changed", fmt.Sprint(taken))
	if len(waiting) > 0 {
		r.log.Warn("configuration: some changes wait for a restart", "changed", fmt.Sprint(waiting))
		next.Keep(r.now, waiting)
	}
	return next
}
