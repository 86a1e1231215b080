package e2e_test

import (
	"flag"
	"fmt"
	"os"
	"testing"
)

// Most of these tests wait for another process, or for time to pass: more of them
// than there are processors may do so side by side.
func TestMain(m *testing.M) {
	flag.Parse()
	if err := flag.Set("test.parallel", "8"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(m.Run())
}
