package reconcile

import "sync"

// bearers remembers who bears the PATs that this process has made, by identity and by
// the user who has signed in as it: another user's PATs have another bearer. A value that
// was put into the vault by hand says nothing of that.
type bearers struct {
	mu sync.Mutex
	of map[signedIn]string
}

// maxBearers bounds them: far more than a manifest has identities. What is forgotten is
// compared from the next PAT on.
const maxBearers = 1000

// signedIn is a user (by object id) who has signed in as an identity.
type signedIn struct{ identity, user string }

// agrees reports whether a PAT made for this identity may have this bearer. The first
// one that is seen decides.
func (b *bearers) agrees(identity, user, bearer string) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	who := signedIn{identity, user}
	if known, ok := b.of[who]; ok {
		return known == bearer
	}
	if b.of == nil {
		b.of = map[signedIn]string{}
	}
	if len(b.of) >= maxBearers {
		clear(b.of)
	}
	b.of[who] = bearer
	return true
}
