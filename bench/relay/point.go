package main

import (
	"fmt"
	"strings"
)

// point is one place of the grid.
type point struct {
	allocations int
	size        int // of the data in ChannelData
	rate        int // packets that all clients together send a second
}

func (p point) String() string { return fmt.Sprintf("%dx%d@%d", p.allocations, p.size, p.rate) }

const (
	maxFlows = 4000 // each has two sockets here, and one in every server
	maxSize  = 1400
)

func parsePoints(s string) (all []point, err error) {
	for text := range strings.SplitSeq(s, ",") {
		var p point
		if _, err := fmt.Sscanf(text, "%dx%d@%d", &p.allocations, &p.size, &p.rate); err != nil || p.String() != text {
			return nil, fmt.Errorf("-points: %q: want ALLOCATIONSxBYTES@RATE", text)
		}
		if p.allocations < 1 || p.allocations > maxFlows || p.size < stampLen || p.size > maxSize || p.rate < 1 {
			return nil, fmt.Errorf("-points: %q: want 1 to %d allocations, %d to %d bytes and a rate", text, maxFlows, stampLen, maxSize)
		}
		all = append(all, p)
	}
	return all, nil
}
