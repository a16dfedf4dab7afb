package node

import (
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"epcscf/turncred"
)

// demoUsers are the users of the miniature core.
var demoUsers = []string{"alice", "bob", "carol"}

// secrets is what a demo keeps between two starts, so that an open page signs in again
// after a restart.
type secrets struct {
	km         turncred.Secret // key of approach 1, text: coturn's static-auth-secret is
	deployment turncred.Secret // key of the Tids
	users      map[string]turncred.Secret
}

// secretsFile is the form of DIR/secrets.json.
type secretsFile struct {
	Km         string            `json:"km"`
	Deployment string            `json:"deployment_secret"`
	Users      map[string]string `json:"users"`
}

// loadSecrets reads DIR/secrets.json, and makes it where it is missing.
func loadSecrets(dir string) (secrets, error) {
	name := filepath.Join(dir, "secrets.json")
	if err := checkPrivate(name); errors.Is(err, fs.ErrNotExist) {
		if err := makeSecrets(name); err != nil {
			return secrets{}, err
		}
	} else if err != nil {
		return secrets{}, err
	}
	raw, err := os.ReadFile(name)
	if err != nil {
		return secrets{}, err
	}
	var f secretsFile
	if err := json.Unmarshal(raw, &f); err != nil {
		return secrets{}, fmt.Errorf("%s: %w; remove the file to have a new one made", name, err)
	}
	s := secrets{
		km: turncred.NewSecret([]byte(f.Km)), deployment: turncred.NewSecret([]byte(f.Deployment)),
		users: map[string]turncred.Secret{},
	}
	for _, u := range demoUsers {
		if f.Users[u] == "" {
			return secrets{}, fmt.Errorf("%s: no password for %s; remove the file to have a new one made", name, u)
		}
		s.users[u] = turncred.NewSecret([]byte(f.Users[u]))
	}
	return s, nil
}

func makeSecrets(name string) error {
	f := secretsFile{Km: rand.Text() + rand.Text(), Deployment: rand.Text() + rand.Text(), Users: map[string]string{}}
	for _, u := range demoUsers {
		f.Users[u] = strings.ToLower(rand.Text()[:12]) // 60 bits, and short enough to type
	}
	raw, err := json.MarshalIndent(f, "", "  ")
	if err != nil {
		return err
	}
	return writeFile(name, append(raw, '\n'), 0o600)
}

// checkPrivate refuses a file of secrets that others may read. The error is
// fs.ErrNotExist where there is no file.
func checkPrivate(name string) error {
	st, err := os.Stat(name)
	if err != nil {
		return err
	}
	if st.Mode().Perm()&0o077 != 0 {
		return modeError(name, st.Mode())
	}
	return nil
}

// writeFile replaces a file in one step, so that a reader never sees half of it.
func writeFile(name string, data []byte, mode fs.FileMode) error {
	f, err := os.CreateTemp(filepath.Dir(name), ".tmp-*")
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(f.Name()) }() // gone after the rename
	_, err = f.Write(data)
	if err := errors.Join(err, f.Chmod(mode), f.Close()); err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	return os.Rename(f.Name(), name)
}
