//go:build race

package main

// raceDetector: allocations cannot be counted, and nothing is quick.
const raceDetector = true
