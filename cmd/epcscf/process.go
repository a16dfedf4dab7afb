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
)

// process is what an operator's file describes, ready to run.
type process interface {
	Run(ctx context.Context) error
	ReloadCertificates()
	// take takes what of a file a running process can; where it returns an error, nothing
	// has changed.
	take(f *config.File) error
}

// runProcess loads a file, starts what it describes, and answers signals until it ends.
func runProcess(c *cobra.Command, load func() (*config.File, error), start func(*config.File, *slog.Logger) (process, error)) error {
	hangUp := make(chan os.Signal, 1) // from the start: SIGHUP would end a process that does not ask for it
	signal.Notify(hangUp, syscall.SIGHUP)
	defer signal.Stop(hangUp)
	f, err := load()
	if err != nil {
		return usageError{err}
	}
	level := &slog.LevelVar{}
	level.Set(f.LogLevel)
	log := newLogger(c.ErrOrStderr(), f.LogFormat, level)
	for _, note := range f.Notes() {
		log.Warn("configuration", "note", note)
	}
	p, err := start(f, log)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(c.Context())
	reloaded := make(chan struct{})
	go func() {
		defer close(reloaded)
		(&reloads{load, p, f, level, log}).run(ctx, hangUp)
	}()
	err = p.Run(ctx)
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
	load    func() (*config.File, error)
	process process
	now     *config.File // what runs
	level   *slog.LevelVar
	log     *slog.Logger
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
	r.process.ReloadCertificates()
	next, err := r.load()
	if err != nil {
		var faults config.Faults
		if errors.As(err, &faults) {
			err = everyFault{faults}
		}
		r.log.Error("configuration not reloaded: what ran goes on", "err", strings.ReplaceAll(err.Error(), "\n", "; "))
		return r.now
	}
	if err := r.process.take(next); err != nil {
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
