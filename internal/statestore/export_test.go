package statestore

// For the fuzz tests.
var ReadPage = readPage

// Recode reads a blob as a T, and writes what it has read.
func Recode[T record](key string, value []byte) (r T, again []byte, err error) {
	r, err = decode[T](key, value)
	if err != nil {
		return r, nil, err
	}
	_, again, err = encode(r)
	return r, again, err
}

// Key is the name of a record's blob.
func Key(r record) string {
	key, _ := r.key()
	return key
}

const (
	CallLimit   = callLimit
	MaxProblems = maxProblems
	MaxText     = maxText
	MaxRead     = maxRead
)
