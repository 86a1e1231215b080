// Command standin takes the handler's place in the packaging tests: small, so
// that it builds in no time, and with the version that the linker writes.
package main

import "fmt"

var version = "unset"

func main() { fmt.Println(version) }
