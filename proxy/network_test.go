package proxy

import "testing"

func TestNetworkNames(t *testing.T) {
	for _, tt := range []struct{ network, visited, origIOI string }{
		{"ims.test", "ims.test", `"Type 1ims.test"`},
		{`Visited Network "1"`, `"Visited Network \"1\""`, `"Type 1Visited Network \"1\""`},
	} {
		if visited, ioi, err := networkNames(tt.network); err != nil || visited != tt.visited || ioi != tt.origIOI {
			t.Errorf("networkNames(%q) = %s, %s, %v; want %s, %s", tt.network, visited, ioi, err, tt.visited, tt.origIOI)
		}
	}
	if _, _, err := networkNames("ims\r\nX: y"); err == nil {
		t.Error("a name with a line end is taken: it would end the header")
	}
}
