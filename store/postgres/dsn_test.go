package postgres

import (
	"errors"
	"strings"
	"testing"
)

func TestParseDSN(t *testing.T) {
	for _, tt := range []struct {
		dsn      string
		allow    bool
		want     error // any: errDSN
		verified bool
	}{
		{dsn: "postgres:///epcscf?host=/run/postgresql"},
		{dsn: "host=/run/postgresql dbname=epcscf"},
		{dsn: "postgres://u@127.0.0.1/epcscf?sslmode=disable"},
		{dsn: "postgres://u@[::1]/epcscf"},
		{dsn: "postgres://u@localhost/epcscf"},
		{dsn: "postgres://u@db.example/epcscf", verified: true},
		{dsn: "host=db.example dbname=epcscf user=u", verified: true},
		{dsn: "postgres://u@db.example/epcscf?sslmode=verify-full", verified: true},
		{dsn: "postgres://u@a.example,b.example/epcscf", verified: true},
		{dsn: "postgres://u@db.example/epcscf?sslmode=require", want: ErrInsecure},
		{dsn: "postgres://u@db.example/epcscf?sslmode=prefer", want: ErrInsecure},
		{dsn: "postgres://u@db.example/epcscf?sslmode=disable", want: ErrInsecure},
		{dsn: "postgres://u@10.0.0.5/epcscf?sslmode=disable", want: ErrInsecure},
		{dsn: "host=db.example sslmode=allow", want: ErrInsecure},
		{dsn: "postgres://u@127.0.0.1,db.example/epcscf?sslmode=disable", want: ErrInsecure},
		{dsn: "postgres://u@db.example/epcscf?sslmode=disable", allow: true},
		{dsn: "postgres://u@127.0.0.1/x?default_query_exec_mode=simple_protocol", want: errDSN},
		{dsn: "postgres://u:hunter2@127.0.0.1:port/x", want: errDSN},
		{dsn: "postgres://u:hunter2@127.0.0.1/x?sslmode=best", want: errDSN},
	} {
		t.Run(tt.dsn, func(t *testing.T) {
			cfg, err := ParseDSN(tt.dsn, tt.allow)
			if (err == nil) != (tt.want == nil) || errors.Is(tt.want, ErrInsecure) && !errors.Is(err, ErrInsecure) {
				t.Fatalf("parse = %v, want %v", err, tt.want)
			}
			if err != nil {
				if strings.Contains(err.Error(), "hunter2") {
					t.Errorf("the error shows the password: %v", err)
				}
				return
			}
			for _, h := range hosts(cfg.ConnConfig) {
				if verified(h.tls) != tt.verified {
					t.Errorf("%s: server verified is %v, want %v", h.host, verified(h.tls), tt.verified)
				}
			}
		})
	}
}
