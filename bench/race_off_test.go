//go:build !race

package main

// raceDetector: allocations can be counted.
const raceDetector = false
