package vault

import (
	"container/list"
	"maps"
	"strings"
	"sync"

	"github.com/azure-patrol/patrol/internal/rotation"
)

// memory remembers the properties, never the values, of the versions that this
// process has met last.
type memory struct {
	mu      sync.Mutex
	limit   int
	order   *list.List // of rotation.Version, last used first
	entries map[string]*list.Element
}

func newMemory(limit int) *memory {
	return &memory{limit: limit, order: list.New(), entries: map[string]*list.Element{}}
}

func key(name, version string) string { return strings.ToLower(name + "/" + version) }

func (m *memory) get(name, version string) (rotation.Version, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	e := m.entries[key(name, version)]
	if e == nil {
		return rotation.Version{}, false
	}
	m.order.MoveToFront(e)
	v := e.Value.(rotation.Version)
	v.Name = name
	v.Foreign = maps.Clone(v.Foreign)
	return v, true
}

func (m *memory) put(v rotation.Version) {
	v.Value = rotation.Secret{}
	v.Foreign = maps.Clone(v.Foreign)
	k := key(v.Name, v.ID)
	m.mu.Lock()
	defer m.mu.Unlock()
	if e := m.entries[k]; e != nil {
		e.Value = v
		m.order.MoveToFront(e)
		return
	}
	m.entries[k] = m.order.PushFront(v)
	if m.order.Len() > m.limit {
		oldest := m.order.Remove(m.order.Back()).(rotation.Version)
		delete(m.entries, key(oldest.Name, oldest.ID))
	}
}

func (m *memory) drop(name, version string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if e := m.entries[key(name, version)]; e != nil {
		m.order.Remove(e)
		delete(m.entries, key(name, version))
	}
}
