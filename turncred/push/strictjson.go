package push

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"unicode/utf8"
)

// maxDepth is above that of our deepest body.
const maxDepth = 8

// decodeStrict decodes one JSON value (RFC 8259) and refuses what two readers could read
// in two ways: a name that is there twice, unknown or in another case, null, text that is
// not UTF-8, and anything behind the value.
func decodeStrict(data []byte, v any) error {
	if !utf8.Valid(data) {
		return errors.New("not UTF-8")
	}
	if err := checkNames(data); err != nil {
		return err
	}
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	return d.Decode(v)
}

// decodeAnswer is decodeStrict for an answer, which a younger relay may have added to.
func decodeAnswer(data []byte, v any) error {
	if err := checkNames(data); err != nil {
		return err
	}
	return json.Unmarshal(data, v)
}

// checkNames walks the tokens: encoding/json takes the last of two members of one name,
// and a name in any case.
func checkNames(data []byte) error {
	d := json.NewDecoder(bytes.NewReader(data))
	d.UseNumber()
	if err := checkValue(d, 0); err != nil {
		return err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return errors.New("something follows the value")
	}
	return nil
}

func checkValue(d *json.Decoder, depth int) error {
	t, err := d.Token()
	switch {
	case err != nil:
		return malformed(err)
	case t == nil:
		return errors.New("null: leave the member out")
	case depth > maxDepth:
		return errors.New("nested too deep")
	}
	switch t {
	case json.Delim('{'):
		return checkObject(d, depth)
	case json.Delim('['):
		for d.More() {
			if err := checkValue(d, depth+1); err != nil {
				return err
			}
		}
		return closing(d)
	}
	return nil
}

func checkObject(d *json.Decoder, depth int) error {
	var seen []string // few: our objects have some ten members
	for d.More() {
		t, err := d.Token()
		if err != nil {
			return malformed(err)
		}
		name, ok := t.(string)
		if !ok || len(seen) > 64 {
			return errors.New("no object of this interface")
		}
		for i := range len(name) {
			if c := name[i]; (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '_' {
				return fmt.Errorf("unknown member %.32q", name)
			}
		}
		for _, o := range seen {
			if o == name {
				return fmt.Errorf("member %.32q is there twice", name)
			}
		}
		seen = append(seen, name)
		if err := checkValue(d, depth+1); err != nil {
			return err
		}
	}
	return closing(d)
}

func closing(d *json.Decoder) error {
	if _, err := d.Token(); err != nil {
		return malformed(err)
	}
	return nil
}

// malformed keeps the text of an error short, and free of what the body held.
func malformed(err error) error {
	var syntax *json.SyntaxError
	if errors.As(err, &syntax) {
		return fmt.Errorf("no JSON at byte %d", syntax.Offset)
	}
	return errors.New("no JSON: it ends too early")
}
