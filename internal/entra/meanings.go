package entra

import "slices"

// Meaning is what one of Entra's AADSTS numbers stands for.
type Meaning struct {
	Number int
	Cause  Cause  // empty: it passes by itself
	Words  string // what is wrong, and what to do
}

// Meanings are the numbers that patrol knows, in their order, for the page of codes.
func Meanings() []Meaning {
	out := make([]Meaning, 0, len(meanings))
	for n, m := range meanings {
		out = append(out, Meaning{n, m.cause, m.message})
	}
	slices.SortFunc(out, func(a, b Meaning) int { return a.Number - b.Number })
	return out
}
