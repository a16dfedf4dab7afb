package proxy

import (
	"strings"
	"testing"

	"epcscf/sipext"
)

// TestParseBearer: RFC 6750 §2.1 and TS 24.371 A.3.2.
func TestParseBearer(t *testing.T) {
	for _, tt := range []struct{ in, want string }{
		{"Bearer mF_9.B5f-4.1JqM", "mF_9.B5f-4.1JqM"}, // the example of RFC 6750 §2.1
		{`Bearer access_token="O91G451HZ0V83opz6udiSEjchPynd2Ss9"`, "O91G451HZ0V83opz6udiSEjchPynd2Ss9"},
		{"Bearer access_token=abc", "abc"},
		{"BEARER   a+/~-._=  ", "a+/~-._="},
		{`Bearer realm="x" , access_token = "abc=="`, "abc=="},
		{"Bearer\tabc", "abc"},
		{"Bearer", ""},
		{"Bearer ", ""},
		{"Bearer ==", ""},
		{"Bearer a b", ""},
		{"Bearer a=b=", ""},
		{`Bearer "abc"`, ""},
		{`Bearer token="abc"`, ""},
		{`Bearer access_token="a b"`, ""},
		{`Bearer access_token="abc`, ""},
		{`Bearer access_token="abc", access_token="abc"`, ""},
		{"Bearer abc, Bearer def", ""},
		{"Bearer a\u00e9", ""},
		{"Bearer " + strings.Repeat("a", maxToken+1), ""},
	} {
		if !isBearer(tt.in) {
			t.Errorf("isBearer(%.40q) is false", tt.in)
		}
		got, err := parseBearer(tt.in)
		if got != tt.want || (err == nil) != (tt.want != "") {
			t.Errorf("parseBearer(%.40q) = %.40q, %v, want %q", tt.in, got, err, tt.want)
		}
	}
	for _, other := range []string{"", "Bear abc", "Bearers abc", `Digest username="Bearer x"`} {
		if isBearer(other) {
			t.Errorf("isBearer(%q) is true", other)
		}
	}
}

// FuzzBearer: what is read as a token is one, and was there; credentials of that scheme are
// nothing that crosses to the core.
func FuzzBearer(f *testing.F) {
	f.Add("Bearer mF_9.B5f-4.1JqM")
	f.Add(`Bearer realm="x", access_token="abc=="`)
	f.Add("bearer\t" + strings.Repeat(".", 100))
	f.Add(`Bearer abc, Digest username="a", response="1"`)
	f.Add(`Bearer access_token="a\b"`)
	f.Fuzz(func(t *testing.T, value string) {
		if !isBearer(value) {
			return
		}
		token, err := parseBearer(value)
		if (err == nil) != isB64Token(token) || len(token) > maxToken {
			t.Fatalf("%q is read as %q, %v", value, token, err)
		}
		if err == nil && !strings.Contains(strings.ReplaceAll(value, `\`, ""), token) {
			t.Fatalf("%q is read as %q, which is not there", value, token)
		}
		if left := ownCredentials(value); left != "" {
			t.Fatalf("%q crosses as %q", value, left)
		}
		m := &sipext.Message{Fields: []sipext.Field{{ID: sipext.Authorization, Value: value}, {ID: sipext.ProxyAuthorization, Value: value}}}
		if two, err2 := bearerOf(m, sipext.Authorization, sipext.ProxyAuthorization); two != token || (err2 == nil) != (err == nil) {
			t.Fatalf("%q in two fields is read as %q, %v", value, two, err2)
		}
	})
}
