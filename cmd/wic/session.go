package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"epcscf/cmd/wic/internal/client"
	"epcscf/sipext"
)

// session is one registration, from dialling to the de-registration.
type session struct {
	*client.Client
	settings *settings
	cfg      client.Config
	reg      client.Registration
	cred     sipext.TurnCred
}

// withSession makes a command's RunE of f, which runs while the user is registered and
// has a credential. It de-registers whatever f returns; where only that fails, that is
// the failure.
func withSession(s *settings, f func(ctx context.Context, c *cobra.Command, ses *session) error) func(*cobra.Command, []string) error {
	return func(c *cobra.Command, _ []string) error {
		if err := s.check(); err != nil {
			return err
		}
		ses, err := s.open(c.Context())
		if err != nil {
			return failure{err}
		}
		defer func() { _ = ses.Close() }()
		err = f(c.Context(), c, ses)
		if derr := ses.deregister(c.Context()); err == nil && derr != nil {
			err = fmt.Errorf("de-register: %w", derr)
		}
		if err != nil {
			return failure{err}
		}
		return nil
	}
}

// open connects and registers. Where there is no credential, it de-registers again.
func (s *settings) open(ctx context.Context) (*session, error) {
	cfg, err := s.config()
	if err != nil {
		return nil, err
	}
	limited, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	cl, err := client.Dial(limited, cfg)
	if err != nil {
		return nil, fmt.Errorf("connect: %w", err)
	}
	ses := &session{Client: cl, settings: s, cfg: cfg}
	ses.reg, ses.cred, err = cl.Register(limited)
	if err != nil {
		if ses.reg.AOR != "" {
			err = errors.Join(fmt.Errorf("%s is registered, but: %w", ses.reg.AOR, err), ses.deregister(ctx))
		}
		return nil, errors.Join(err, cl.Close())
	}
	return ses, nil
}

// deregister has its own time: an interrupt is no reason to leave a binding behind.
func (ses *session) deregister(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), ses.settings.timeout)
	defer cancel()
	return ses.Deregister(ctx)
}
