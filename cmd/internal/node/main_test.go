package node

import (
	"testing"

	"go.uber.org/goleak"
)

// A node that is closed leaves nothing running.
func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }
