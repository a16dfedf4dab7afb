package coturn

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"sync/atomic"
	"time"
	"unicode"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"epcscf/store/postgres"
	"epcscf/turncred"
	"epcscf/turncred/push"
)

// Database is coturn's own PostgreSQL database (psql-userdb of turnserver.conf), with our
// tables beside coturn's. Safe for concurrent use; several edges may write to one.
type Database struct {
	pool     *pgxpool.Pool
	realm    turncred.Realm
	prepared atomic.Bool // our tables are there
}

// tables of ours. Tids and times only: what coturn checks stands in coturn's tables.
const tables = `
CREATE TABLE IF NOT EXISTS epcscf_turn_users (
	tid     text PRIMARY KEY,
	name    text NOT NULL,
	realm   text NOT NULL,
	kid     text NOT NULL,
	subject bigint NOT NULL,
	binding integer NOT NULL,
	issued  bigint NOT NULL,
	texp    bigint NOT NULL
);
CREATE INDEX IF NOT EXISTS epcscf_turn_users_subject ON epcscf_turn_users (subject, issued);
CREATE INDEX IF NOT EXISTS epcscf_turn_users_kid ON epcscf_turn_users (kid, issued);
CREATE INDEX IF NOT EXISTS epcscf_turn_users_texp ON epcscf_turn_users (texp);
CREATE TABLE IF NOT EXISTS epcscf_turn_revocations (
	tid          text NOT NULL,
	kid          text NOT NULL,
	subject      bigint NOT NULL,
	binding      integer NOT NULL,
	issued_until bigint NOT NULL,
	gone         bigint NOT NULL,
	PRIMARY KEY (tid, kid, subject, binding, issued_until)
);
CREATE INDEX IF NOT EXISTS epcscf_turn_revocations_gone ON epcscf_turn_revocations (gone);
CREATE TABLE IF NOT EXISTS epcscf_turn_secrets (
	realm text NOT NULL,
	value text NOT NULL,
	PRIMARY KEY (realm, value)
);`

// NewDatabase takes the connection string of coturn's database, as package postgres wants one,
// and coturn's realm. It connects when there is something to do, so that an edge starts with
// the database down.
func NewDatabase(url turncred.Secret, realm turncred.Realm) (*Database, error) {
	cfg, err := postgres.ParseDSN(string(url.Reveal()), false)
	if err != nil {
		return nil, fmt.Errorf("coturn's database: %w", err)
	}
	pool, err := pgxpool.NewWithConfig(context.Background(), cfg)
	if err != nil {
		return nil, fmt.Errorf("coturn's database: %w", err)
	}
	return &Database{pool: pool, realm: realm}, nil
}

// prepare makes our tables where they are not there. Two edges that start at once would both
// create them, which PostgreSQL answers to one with an error, so the one waits for the other.
func (d *Database) prepare(ctx context.Context) error {
	err := pgx.BeginFunc(ctx, d.pool, func(tx pgx.Tx) error {
		var there bool
		if err := tx.QueryRow(ctx, `SELECT to_regclass('turnusers_lt') IS NOT NULL AND to_regclass('turn_secret') IS NOT NULL`).Scan(&there); err != nil {
			return err
		}
		if !there {
			return errors.New("tables turnusers_lt and turn_secret are missing: load coturn's schema.sql first")
		}
		if _, err := tx.Exec(ctx, `SELECT pg_advisory_xact_lock($1)`, writeLock); err != nil {
			return err
		}
		_, err := tx.Exec(ctx, tables)
		return err
	})
	if err == nil {
		d.prepared.Store(true)
	}
	return err
}

func (d *Database) within(ctx context.Context, what string, do func(pgx.Tx) error) error {
	if !d.prepared.Load() {
		if err := d.prepare(ctx); err != nil {
			return fmt.Errorf("coturn's database: make tables: %w", err)
		}
	}
	if err := pgx.BeginFunc(ctx, d.pool, do); err != nil {
		return fmt.Errorf("coturn's database: %s: %w", what, err)
	}
	return nil
}

// Close ends the connections.
func (d *Database) Close() { d.pool.Close() }

// Put implements push.Sink: when it returns nil, coturn takes the credential. One that a
// revocation hits is not written, and that is no error: the revocation has come first.
func (d *Database) Put(ctx context.Context, r push.Record) error {
	var conflict bool
	err := d.within(ctx, "write a credential", func(tx pgx.Tx) error {
		conflict = false
		id := r.Identity
		if _, err := tx.Exec(ctx, `SELECT pg_advisory_xact_lock_shared($1)`, writeLock); err != nil {
			return err
		}
		tag, err := tx.Exec(ctx, `
			INSERT INTO epcscf_turn_users (tid, name, realm, kid, subject, binding, issued, texp)
			SELECT $1, $2, $3, $4, $5, $6, $7, $8
			WHERE NOT EXISTS (SELECT FROM epcscf_turn_revocations WHERE `+revokes+`)
			ON CONFLICT (tid) DO NOTHING`,
			string(r.Tid), r.Username, string(r.Realm), string(r.Tid.KeyID()),
			int64(id.Subject), int32(id.Binding), int64(id.Issued), r.Texp.Unix())
		if err != nil {
			return err
		}
		key := hex.EncodeToString(r.Key.MD5.Reveal())
		if tag.RowsAffected() == 1 {
			_, err = tx.Exec(ctx, `INSERT INTO turnusers_lt (realm, name, hmackey) VALUES ($1, $2, $3) ON CONFLICT (realm, name) DO UPDATE SET hmackey = $3`,
				string(r.Realm), r.Username, key)
			return err
		}
		// There already, or revoked: the same again is the same answer. Of one that was revoked
		// since, coturn's row and with it the key are gone.
		return tx.QueryRow(ctx, `
			SELECT EXISTS (
				SELECT FROM epcscf_turn_users u LEFT JOIN turnusers_lt l ON l.realm = u.realm AND l.name = u.name
				WHERE u.tid = $1 AND (u.name, u.realm, u.texp, u.subject) IS DISTINCT FROM ($2, $3, $4::bigint, $5::bigint)
				   OR u.tid = $1 AND l.hmackey <> $6::char(128))`,
			string(r.Tid), r.Username, string(r.Realm), r.Texp.Unix(), int64(id.Subject), key).Scan(&conflict)
	})
	if err == nil && conflict {
		return push.ErrConflict
	}
	return err
}

// writeLock has a revocation and the writes that it may hit see each other: writers share it,
// a revocation has it alone for as long as its transaction.
const writeLock = 0x65706373 // "epcs"

// revokes holds for a revocation that hits the credential $1 of kid $4, subject $5, binding
// $6, issued at $7. Its empty fields match all; -1 stands for every binding.
const revokes = `(tid = $1 OR tid = ''
	AND (kid = $4 OR kid = '') AND (subject = $5 OR subject = 0)
	AND (binding = $6 OR binding = -1) AND issued_until >= $7)`

// Revoke deletes what r hits, and keeps r so that a late write does not bring it back.
func (d *Database) Revoke(ctx context.Context, r turncred.Revocation) error {
	tid, kid, subject, binding, issued := string(r.Tid), string(r.KeyID), int64(r.Subject), int32(-1), int64(r.IssuedUntil)
	if tid != "" {
		kid, subject, issued = "", 0, 0
	} else if r.Binding != nil {
		binding = int32(*r.Binding)
	}
	return d.within(ctx, "revoke", func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, `SELECT pg_advisory_xact_lock($1)`, writeLock); err != nil {
			return err
		}
		if _, err := tx.Exec(ctx, `
			INSERT INTO epcscf_turn_revocations (tid, kid, subject, binding, issued_until, gone) VALUES ($1, $2, $3, $4, $5, $6)
			ON CONFLICT (tid, kid, subject, binding, issued_until) DO UPDATE SET gone = greatest(epcscf_turn_revocations.gone, excluded.gone)`,
			tid, kid, subject, binding, issued, r.Until.Unix()); err != nil {
			return err
		}
		condition := `tid = $1`
		args := []any{tid}
		switch {
		case tid != "":
		case kid != "":
			condition, args = `kid = $1 AND issued <= $2`, []any{kid, issued}
		case binding >= 0:
			condition, args = `subject = $1 AND issued <= $2 AND binding = $3`, []any{subject, issued, binding}
		default:
			condition, args = `subject = $1 AND issued <= $2`, []any{subject, issued}
		}
		_, err := tx.Exec(ctx, remove(condition), args...)
		return err
	})
}

// remove deletes users from coturn's table, by a condition on ours. Our row stays: its Tid
// is spent, and Prune takes it.
func remove(condition string) string {
	return `DELETE FROM turnusers_lt l USING epcscf_turn_users u WHERE l.realm = u.realm AND l.name = u.name AND u.` + condition
}

// Prune deletes what has expired, which coturn does not do. Until then coturn takes an
// expired credential.
func (d *Database) Prune(ctx context.Context, now time.Time) error {
	return d.within(ctx, "prune", func(tx pgx.Tx) error {
		at := now.Unix()
		for _, sql := range []string{
			remove(`texp <= $1`),
			`DELETE FROM epcscf_turn_users WHERE texp <= $1`,
			`DELETE FROM epcscf_turn_revocations WHERE gone <= $1`,
		} {
			if _, err := tx.Exec(ctx, sql, at); err != nil {
				return err
			}
		}
		return nil
	})
}

// SetSecrets has coturn take exactly these keys of approach 1 for the realm, beside rows of
// turn_secret that are not ours. A key must be printable text: coturn reads it as such.
func (d *Database) SetSecrets(ctx context.Context, keys []turncred.Key) error {
	if err := checkSecrets(keys); err != nil {
		return err
	}
	values := make([]string, 0, len(keys))
	for _, k := range keys {
		values = append(values, string(k.Secret.Reveal()))
	}
	return d.within(ctx, "write keys", func(tx pgx.Tx) error {
		realm := string(d.realm)
		for _, sql := range []string{
			`DELETE FROM turn_secret t USING epcscf_turn_secrets s WHERE s.realm = $1 AND t.realm = s.realm AND t.value = s.value AND t.value <> ALL($2)`,
			`DELETE FROM epcscf_turn_secrets WHERE realm = $1 AND value <> ALL($2)`,
			`INSERT INTO epcscf_turn_secrets (realm, value) SELECT $1, unnest($2::text[]) ON CONFLICT DO NOTHING`,
			`INSERT INTO turn_secret (realm, value) SELECT $1, unnest($2::text[]) ON CONFLICT DO NOTHING`,
		} {
			if _, err := tx.Exec(ctx, sql, realm, values); err != nil {
				return err
			}
		}
		return nil
	})
}

// maxSecret is the width of turn_secret.value.
const maxSecret = 256

func checkSecrets(keys []turncred.Key) error {
	for _, k := range keys {
		if !printable(k.Secret.Reveal()) {
			return fmt.Errorf("key %s: coturn takes printable ASCII of 1 to %d characters only", k.ID, maxSecret)
		}
	}
	return nil
}

func printable(b []byte) bool {
	if len(b) == 0 || len(b) > maxSecret {
		return false
	}
	for _, c := range b {
		if c > unicode.MaxASCII || !unicode.IsPrint(rune(c)) {
			return false
		}
	}
	return true
}
