package rotation

import (
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

const (
	// maxNotes is how much a version can carry of its history: Key Vault's limit
	// for a tag.
	maxNotes = 256
	// maxName bounds whom a note or a version names.
	maxName = 100
	// maxOperation bounds an operation's id.
	maxOperation = 128
)

// NoteExtended is the note that a person has moved the PAT's end.
const NoteExtended = "extended"

// Note is one action on a version's PAT that its other tags do not tell.
type Note struct {
	At    time.Time
	Act   string    // one word: extended
	Until time.Time // the PAT's new end
	By    string    // who asked
}

// Notes reads a Ledger's History, oldest first. People can edit tags: what is no note
// is passed over.
func Notes(history string) []Note {
	var out []Note
	for part := range strings.SplitSeq(history, "; ") {
		f := strings.SplitN(part, " ", 4)
		if len(f) != 4 || f[1] == "" {
			continue
		}
		at, err := time.Parse(time.RFC3339, f[0])
		until, err2 := time.Parse(time.RFC3339, f[2])
		if err != nil || err2 != nil {
			continue
		}
		out = append(out, Note{At: at.UTC(), Act: f[1], Until: until.UTC(), By: f[3]})
	}
	return out
}

// Noted adds a note to a history. The oldest make room.
func Noted(history string, n Note) string {
	notes := append(Notes(history), n)
	for {
		parts := make([]string, len(notes))
		for i, n := range notes {
			parts[i] = strings.Join([]string{n.At.UTC().Format(time.RFC3339), n.Act, n.Until.UTC().Format(time.RFC3339),
				plain(n.By, maxName)}, " ")
		}
		out := strings.Join(parts, "; ")
		if utf8.RuneCountInString(out) <= maxNotes || len(notes) == 1 {
			return out
		}
		notes = notes[1:]
	}
}

// plain makes a name of what a request said: printable, short, and never the mark
// between two notes.
func plain(s string, limit int) string {
	s = strings.Map(func(r rune) rune {
		if r == ';' || r == utf8.RuneError || !unicode.IsPrint(r) {
			return -1
		}
		return r
	}, s)
	if r := []rune(s); len(r) > limit {
		s = string(r[:limit])
	}
	return strings.TrimSpace(s)
}

// origin is what a version remembers of the command that made it. A command that was
// put off carries its new time behind the operation.
func (c Command) Origin() (requestedBy, operation string) {
	operation, _, _ = strings.Cut(c.Operation, "~")
	return plain(c.RequestedBy, maxName), plain(operation, maxOperation)
}
