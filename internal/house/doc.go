// Package house holds the rules by which this project is kept: which room may know
// which other room, how long a line and how dense a condition may be, which words are
// not used. It has tests only, and knows the tree as text and syntax, not what it does.
package house
