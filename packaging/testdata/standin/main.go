// Command standin takes the handler's place in the packaging tests: small, so
// that it builds in no time, with the version that the linker writes, and like the
// handler with a module that lies in the checkout.
package main

import (
	"fmt"

	"github.com/azure-patrol/patrol/events"
)

var version = "unset"

func main() { fmt.Println(version, len(events.Types())) }
