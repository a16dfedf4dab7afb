package coturn

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"

	"epcscf/turncred"
)

// Admin is coturn's admin interface (cli-ip, cli-port and cli-password of turnserver.conf):
// telnet, lines that end with CR LF, a prompt of "> ".
type Admin struct {
	Addr     string // host:port; coturn's default port is 5766
	Password turncred.Secret
	Timeout  time.Duration // of one conversation; default 5 s
}

// ErrPassword says that coturn did not take the password.
var ErrPassword = errors.New("coturn: the admin interface refuses the password: compare it with cli-password")

// maxAnswer bounds what one command may answer: 100,000 sessions of 600 bytes.
const maxAnswer = 64 << 20

// conversation is one connection, after the password.
type conversation struct {
	conn net.Conn
	r    *bufio.Reader
}

func (a *Admin) open(ctx context.Context) (*conversation, error) {
	timeout := a.Timeout
	if timeout == 0 {
		timeout = 5 * time.Second
	}
	dialer := net.Dialer{Timeout: timeout}
	conn, err := dialer.DialContext(ctx, "tcp", a.Addr)
	if err != nil {
		return nil, fmt.Errorf("coturn's admin interface: %w", err)
	}
	deadline := time.Now().Add(timeout)
	if d, ok := ctx.Deadline(); ok && d.Before(deadline) {
		deadline = d
	}
	c := &conversation{conn: conn, r: bufio.NewReader(conn)}
	if err := conn.SetDeadline(deadline); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	if err := c.login(a.Password); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return c, nil
}

const (
	prompt      = "> "
	askPassword = "Enter password: "
)

func (c *conversation) login(password turncred.Secret) error {
	if _, err := c.until(askPassword); err != nil {
		return err
	}
	if _, err := fmt.Fprintf(c.conn, "%s\r\n", password.Reveal()); err != nil {
		return fmt.Errorf("coturn's admin interface: %w", err)
	}
	// The banner ends its question with CR LF; then comes the prompt, or the question again.
	_, err := c.until(prompt)
	return err
}

// until reads up to and with the end of an answer. A second question for the password is
// ErrPassword.
func (c *conversation) until(end string) (string, error) {
	var b strings.Builder
	for b.Len() < maxAnswer {
		octet, err := c.r.ReadByte()
		if err != nil {
			return "", fmt.Errorf("coturn's admin interface: %w", err)
		}
		b.WriteByte(octet)
		switch s := b.String(); {
		case strings.HasSuffix(s, end) && (end != prompt || len(s) == len(end) || s[len(s)-len(end)-1] == '\n'):
			return s, nil
		case end == prompt && strings.HasSuffix(s, askPassword):
			return "", ErrPassword
		}
	}
	return "", fmt.Errorf("coturn's admin interface: an answer of more than %d bytes", maxAnswer)
}

// ask sends one command, which must hold no line end.
func (c *conversation) ask(command string) (string, error) {
	if strings.ContainsAny(command, "\r\n") {
		return "", fmt.Errorf("coturn's admin interface: a command of two lines: %q", command)
	}
	if _, err := fmt.Fprintf(c.conn, "%s\r\n", command); err != nil {
		return "", fmt.Errorf("coturn's admin interface: %w", err)
	}
	return c.until(prompt)
}

// users returns the user names that have sessions:
//
//	user: <NAME>, 3 sessions
func (c *conversation) users() ([]string, error) {
	answer, err := c.ask("pu")
	if err != nil {
		return nil, err
	}
	return between(answer, "user: <", ">, "), nil
}

// sessions returns the ids of a user's sessions:
//
//  1. id=001000000000000002, user <NAME>:
func (c *conversation) sessions(user string) ([]string, error) {
	answer, err := c.ask("ps " + user)
	if err != nil {
		return nil, err
	}
	return between(answer, " id=", ", user <"+user+">:"), nil
}

// cancel ends a session. coturn says nothing of whether there was one.
func (c *conversation) cancel(session string) error {
	_, err := c.ask("cs " + session)
	return err
}

func (c *conversation) close() error {
	_, _ = fmt.Fprint(c.conn, "quit\r\n")
	return c.conn.Close()
}

// between returns what stands between a and b in each line.
func between(text, a, b string) (found []string) {
	for line := range strings.Lines(text) {
		_, rest, ok := strings.Cut(line, a)
		if !ok {
			continue
		}
		if what, _, ok := strings.Cut(rest, b); ok {
			found = append(found, what)
		}
	}
	return found
}

// endSessions ends the sessions of all users that hits names, and returns how many. It looks
// until it finds none, since an Allocate may have been under way.
func (a *Admin) endSessions(ctx context.Context, hits func(user string) bool) (ended int, err error) {
	c, err := a.open(ctx)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, c.close()) }()
	for range 2 {
		users, err := c.users()
		if err != nil {
			return ended, err
		}
		for _, user := range users {
			if !hits(user) {
				continue
			}
			ids, err := c.sessions(user)
			if err != nil {
				return ended, err
			}
			for _, id := range ids {
				if err := c.cancel(id); err != nil {
					return ended, err
				}
				ended++
			}
		}
	}
	return ended, nil
}
