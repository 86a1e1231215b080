package main

import (
	"strings"
	"testing"
	"time"
)

func TestTheModelsQueueKeepsToItsLimits(t *testing.T) {
	a := arrangement{identities: 1, sessions: 16, call: 50 * time.Millisecond, idle: time.Second}
	pats := make([]int32, 1000)
	for i := range pats {
		pats[i] = int32(i)
	}
	// 63 rounds of sixteen; the last one's fourth call makes the PAT readable.
	if got, want := a.work(pats), 62*a.invocation()+4*a.call; got != want {
		t.Errorf("sessions alone: %v, want %v", got, want)
	}
	// 200 rotations in a window: the last two hundred begin four windows after the first.
	a.cost = 0.5
	if got := a.work(pats); got < 4*budgetWindow || got > 4*budgetWindow+200*a.invocation()/16+a.invocation() {
		t.Errorf("with the throttle: %v, want a little over %v", got, 4*budgetWindow)
	}
	a.identities = 5
	if got, want := a.work(pats), 62*a.invocation()+4*a.call; got != want {
		t.Errorf("five identities that just have the budget: %v, want %v", got, want)
	}
}

func TestEveryPATOfTheModelIsRotatedOnTime(t *testing.T) {
	a := million
	a.pats, a.apps, a.identities = 1000, 2, 2
	o := a.year()
	// Every PAT lives 18 to 20 days, and up to a sweep longer until it is found.
	if perPAT := float64(o.rotations) / 1000; perPAT < 365/20.25-1 || perPAT > 365/18.0+1 {
		t.Errorf("%.1f rotations of a PAT in the year", perPAT)
	}
	if o.longest > a.sweeps || o.pages != 20+2*3 {
		t.Errorf("%+v", o)
	}
	var b strings.Builder
	if err := table(&b, []result{{Name: "x", Value: 2, Unit: "s", Bar: 1}}); err != nil || !strings.Contains(b.String(),
		"1 BROKEN") {
		t.Errorf("%v: %q", err, b.String())
	}
}
