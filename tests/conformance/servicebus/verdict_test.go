package main

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

func TestAGoTestReportIsRead(t *testing.T) {
	got, err := outcomes([]byte(`go: downloading something
{"Action":"run","Package":"` + module + `","Test":"TestA"}
{"Action":"output","Package":"` + module + `","Test":"TestA","Output":"one\n"}
{"Action":"output","Package":"` + module + `","Test":"TestA","Output":"two\n"}
{"Action":"pass","Package":"` + module + `","Test":"TestA","Elapsed":1.5}
{"Action":"skip","Package":"` + module + `/internal","Test":"TestA","Elapsed":0}
{"Action":"run","Package":"` + module + `","Test":"TestB"}
{"Action":"fail","Package":"` + module + `","Elapsed":2}
`))
	if err != nil {
		t.Fatal(err)
	}
	if o := got["TestA"]; o.state != "pass" || o.output != "one\ntwo\n" || o.elapsed.Seconds() != 1.5 {
		t.Errorf("TestA: %+v", o)
	}
	if got["internal.TestA"].state != "skip" || got["TestB"].state != "" || len(got) != 3 {
		t.Errorf("%+v", got)
	}
	if _, err := outcomes([]byte("{not JSON\n")); err == nil {
		t.Error("what is no report was read")
	}
}

func TestALiveTestIsOneThatSkipsWithoutAService(t *testing.T) {
	recorded := map[string]outcome{
		"TestPasses": {state: "skip"}, "TestFails": {state: "skip"}, "TestSkips": {state: "skip"},
		"TestDies":  {state: "skip"},
		"TestOther": {state: "pass"}, "TestOtherFails": {state: "pass"},
		"TestPart": {state: "pass"}, "TestPart/live": {state: "skip"}, "TestPart/unit": {state: "pass"},
		"TestParts": {state: "pass"}, "TestParts/a": {state: "skip"},
		"TestSessionReceiver_Detach": {state: "skip"},
	}
	live := map[string]outcome{
		"TestPasses": {state: "pass"}, "TestFails": {state: "fail", output: "why\n"}, "TestSkips": {state: "skip"},
		"TestDies":  {},
		"TestOther": {state: "pass"}, "TestOtherFails": {state: "fail"},
		"TestPart": {state: "pass"}, "TestPart/live": {state: "pass"}, "TestPart/unit": {state: "pass"},
		"TestParts": {state: "pass"}, "TestParts/a": {state: "skip"},
		"TestSessionReceiver_Detach": {state: "fail"},
	}
	v := judge(recorded, live)
	for what, got := range map[string][2][]string{
		"passed":  {v.passed, {"TestPart", "TestPasses"}},
		"failed":  {v.failed, {"TestDies", "TestFails", "TestOtherFails"}},
		"skipped": {v.skipped, {"TestParts", "TestSkips"}},
		"known":   {v.known, {"TestSessionReceiver_Detach"}},
	} {
		if !slices.Equal(got[0], got[1]) {
			t.Errorf("%s: %v, want %v", what, got[0], got[1])
		}
	}
	if v.others != 1 {
		t.Errorf("%d others", v.others)
	}
	var out strings.Builder
	v.write(&out)
	for _, want := range []string{"FAIL TestFails\nwhy\n",
		"live tests: 2 pass, 4 fail (1 of them known), 2 skip themselves, 4 left out"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q is not in\n%s", want, out.String())
		}
	}
	live["TestSessionReceiver_Detach"] = outcome{state: "pass"}
	if v := judge(recorded, live); !slices.Equal(v.stale, []string{"TestSessionReceiver_Detach"}) ||
		len(v.passed) != 3 {
		t.Errorf("one that is better than its name: %v %v", v.stale, v.passed)
	}
}

func TestWhatIsLeftOutIsNamedExactly(t *testing.T) {
	for alternative := range strings.SplitSeq(excludedPattern(), "|") {
		for part := range strings.SplitSeq(alternative, "/") {
			if _, err := regexp.Compile(part); err != nil || !strings.HasPrefix(part, "^") ||
				!strings.HasSuffix(part, "$") {
				t.Errorf("%q: %v", part, err)
			}
		}
	}
	for name, why := range excluded() {
		if why == "" || strings.Contains(name, " ") {
			t.Errorf("%q: %q", name, why)
		}
	}
}

func TestTheCredentialIsTheOneLineThatChanges(t *testing.T) {
	file := filepath.Join(t.TempDir(), "helpers.go")
	write := func(text string) {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("a\ncred, err := credential.New(nil)\nb\n")
	if err := changeCredential(file); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(file)
	if err != nil || string(got) != "a\ncred, err := credential.Fake{}, error(nil)\nb\n" {
		t.Errorf("%q, %v", got, err)
	}
	for _, text := range []string{"nothing", "credential.New(nil) credential.New(nil)"} {
		write(text)
		if err := changeCredential(file); err == nil {
			t.Errorf("%q was changed", text)
		}
	}
}
