package manifest

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"github.com/azure-patrol/patrol/internal/rotation"
)

// APIVersion is the one version of the format.
const APIVersion = "patrol/v1"

const (
	maxSize   = 32 << 20
	large     = 256 << 10
	maxPATs   = 100_000
	maxScopes = 100
	// maxProblems and maxKeys end what aliases could otherwise multiply.
	maxProblems = 1000
	maxKeys     = 64
	maxLifetime = 365 * 24 * time.Hour // Azure DevOps issues no longer ones
	year        = 365 * 24 * time.Hour
	maxBackup   = 500 // past versions of a secret that Key Vault backs up
	// maxIdentityName keeps the id of an identity's events, which is a Service
	// Bus MessageId, within the broker's 128 characters.
	maxIdentityName = 100
)

// What applies where neither the PAT nor the file's defaults say otherwise.
const (
	DefaultLifetime     = 30 * 24 * time.Hour
	DefaultRotateBefore = 10 * 24 * time.Hour
	DefaultOverlap      = 24 * time.Hour
)

// Manifest is a file without problems.
type Manifest struct {
	Identities map[string]IdentitySpec
	// PATs are in the file's order, every default filled in.
	PATs []rotation.Spec
	// Refused are the entries that are not in force though the others are, in the
	// file's order. Their secrets are declared all the same.
	Refused []Refusal
	// Overlap is the default one, of PATs whose entry is gone.
	Overlap time.Duration
	// Freezes hold for every entry, which has them too.
	Freezes []rotation.Freeze

	byName map[string]int // lower-case name to index in PATs
}

// IdentitySpec declares who owns PATs.
type IdentitySpec struct {
	Name string
	// User is the user principal name of the one person or account that may
	// sign in for it.
	User string
	// Administrator asks for the scopes that revoke other users' PATs, too.
	Administrator bool
}

// Refusal is an entry that is refused singly, because it alone is concerned.
type Refusal struct {
	Finding
	// Identity is the name of the identity that is refused, or whose PAT is.
	Identity string
	PAT      rotation.Spec // the zero value: an identity is refused
}

func (m *Manifest) refuse(f Finding, s rotation.Spec) {
	m.Refused = append(m.Refused, Refusal{Finding: f, Identity: s.Identity, PAT: s})
}

func (m *Manifest) refuseIdentity(name string, f Finding) {
	m.Refused = append(m.Refused, Refusal{Finding: f, Identity: name})
}

// RefusedIdentity finds why an identity is refused, if it is.
func (m *Manifest) RefusedIdentity(name string) (Finding, bool) {
	i := slices.IndexFunc(m.Refused, func(r Refusal) bool { return r.PAT.Name == "" && r.Identity == name })
	if i < 0 {
		return Finding{}, false
	}
	return m.Refused[i].Finding, true
}

// RefusedPATs are the names of the entries that are not in force.
func (m *Manifest) RefusedPATs() []string {
	var names []string
	for _, r := range m.Refused {
		if r.PAT.Name != "" {
			names = append(names, r.PAT.Name)
		}
	}
	return names
}

// PAT finds a PAT by its name, without case: Key Vault's names have none.
func (m *Manifest) PAT(name string) (rotation.Spec, bool) {
	i, ok := m.byName[strings.ToLower(name)]
	if !ok {
		return rotation.Spec{}, false
	}
	return m.PATs[i], true
}

// Finding is one thing that is wrong in a file, or for a Warning doubtful.
type Finding struct {
	File         string
	Line, Column int    // from 1; 0: not known
	What         string // what is wrong
	Do           string // what to do about it
}

// Warning is a Finding that patrol can live with.
type Warning = Finding

func (f Finding) String() string {
	var b strings.Builder
	b.WriteString(f.File)
	if f.Line > 0 {
		fmt.Fprintf(&b, ":%d", f.Line)
		if f.Column > 0 {
			fmt.Fprintf(&b, ":%d", f.Column)
		}
	}
	b.WriteString(": " + f.What)
	if f.Do != "" {
		b.WriteString("; " + f.Do)
	}
	return b.String()
}

// Findings is the error of a file that cannot be used: all that is wrong with it,
// in the file's order.
type Findings []Finding

// Error gives one line per finding.
func (fs Findings) Error() string {
	lines := make([]string, len(fs))
	for i, f := range fs {
		lines[i] = f.String()
	}
	return strings.Join(lines, "\n")
}

// Read reads the manifest at path. The error is of type Findings.
func Read(path string) (*Manifest, []Warning, error) {
	data, err := readFile(path)
	if err != nil {
		what, do := "the manifest cannot be read", "see that it is a readable file, and what PATROL_MANIFEST says"
		if errors.Is(err, fs.ErrNotExist) {
			what, do = "there is no manifest here",
				"put pats.yaml beside host.json, or say in PATROL_MANIFEST where it is"
		}
		return nil, nil, Findings{{File: path, What: what, Do: do}}
	}
	if len(data) > large {
		// The YAML parser's nodes take many times the file's size. They shall not
		// have as much garbage beside them, nor the process hold on to any of it
		// for the days that it lives.
		defer debug.FreeOSMemory()
		defer debug.SetGCPercent(debug.SetGCPercent(25))
	}
	return Parse(path, data)
}

// readFile stops one byte past the limit, which Parse then refuses.
func readFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }() // only read from
	return io.ReadAll(io.LimitReader(f, maxSize+1))
}

// Parse reads a manifest from memory; name stands in its messages. The error is of
// type Findings.
func Parse(name string, data []byte) (*Manifest, []Warning, error) {
	p := &parser{file: name}
	m := p.parse(data)
	slices.SortStableFunc(p.warnings, inOrder)
	if len(p.findings) == 0 {
		slices.SortStableFunc(m.Refused, func(a, b Refusal) int { return inOrder(a.Finding, b.Finding) })
		return m, p.warnings, nil
	}
	if m != nil { // whoever corrects the file corrects these, too
		for _, r := range m.Refused {
			p.findings = append(p.findings, r.Finding)
		}
	}
	slices.SortStableFunc(p.findings, inOrder)
	return nil, p.warnings, p.findings
}

// inOrder compares by the place in the file.
func inOrder(a, b Finding) int {
	if a.Line != b.Line {
		return a.Line - b.Line
	}
	return a.Column - b.Column
}
