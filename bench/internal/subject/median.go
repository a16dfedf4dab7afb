package subject

import (
	"slices"
	"time"
)

// Median is the mean of the middle two where the number of values is even.
func Median[V ~int64 | ~float64](vs []V) V {
	if len(vs) == 0 {
		return 0
	}
	s := slices.Sorted(slices.Values(vs))
	return (s[(len(s)-1)/2] + s[len(s)/2]) / 2
}

// Over picks a value of each round.
func Over[R, V any](rounds []R, pick func(R) V) []V {
	vs := make([]V, len(rounds))
	for i, r := range rounds {
		vs[i] = pick(r)
	}
	return vs
}

// Percentile takes the nearest rank of sorted values.
func Percentile(sorted []time.Duration, p int) time.Duration {
	if len(sorted) == 0 {
		return 0
	}
	return sorted[max(0, (len(sorted)*p+99)/100-1)]
}
