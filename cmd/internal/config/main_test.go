package config

import (
	"testing"

	"go.uber.org/goleak"
)

// Checking a file wires the parts; nothing of them may stay.
func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }
