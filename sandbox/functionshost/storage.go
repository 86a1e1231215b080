package functionshost

import (
	"sync"
	"time"
)

// leaseLife is how long a listener's lock outlives a host that died with it.
const leaseLife = time.Minute

// Storage stands in for the storage account of an app: it keeps timer states and
// the locks that let one instance alone listen. Hosts that share a Storage are
// instances of one app, or the same app started again. The zero value is ready.
type Storage struct {
	mu     sync.Mutex
	status map[string]scheduleStatus
	leases map[string]lease
}

// scheduleStatus is what the schedule monitor keeps of a timer.
type scheduleStatus struct {
	last, next, lastUpdated time.Time
}

type lease struct {
	holder  *Host
	expires time.Time // zero while the holder lives
}

// acquire takes the lock of a name; false: another host has it.
func (s *Storage) acquire(name string, h *Host) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	l, taken := s.leases[name]
	expired := !l.expires.IsZero() && !time.Now().Before(l.expires)
	if taken && l.holder != h && !expired {
		return false
	}
	if s.leases == nil {
		s.leases = map[string]lease{}
	}
	s.leases[name] = lease{holder: h}
	return true
}

// release gives all locks of a host back; those of one that died run out.
func (s *Storage) release(h *Host, died bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for name, l := range s.leases {
		if l.holder != h {
			continue
		}
		if !died {
			delete(s.leases, name)
			continue
		}
		l.expires = time.Now().Add(leaseLife)
		s.leases[name] = l
	}
}

func (s *Storage) get(name string) (scheduleStatus, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	st, ok := s.status[name]
	return st, ok
}

func (s *Storage) put(name string, st scheduleStatus) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.status == nil {
		s.status = map[string]scheduleStatus{}
	}
	s.status[name] = st
}
