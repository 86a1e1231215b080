package vault

import "github.com/azure-patrol/patrol/internal/rotation"

// For the fuzz tests of the decoders and the test of the memory's bound.
var (
	Encode    = encode
	Decode    = decode
	NewMemory = newMemory

	Properties = properties
	Details    = details
)

const Remembered = remembered

func (m *memory) Len() int { return len(m.entries) }

func Remember(m *memory, v rotation.Version) { m.put(v) }

func Recall(m *memory, name, version string) (rotation.Version, bool) { return m.get(name, version) }
