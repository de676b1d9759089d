package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

const (
	killedOne = `
mutant: minus
breaks: the sum
file: toy.go
test: . TestName
test: . TestAdd
- return a + b
+ return a - b
`
	survivor = `
mutant: other-name
breaks: the name
file: toy.go
test: . TestName
- return "toy"
+ return "yot"
`
	stale = `
mutant: stale
breaks: nothing, for its line is gone
file: toy.go
test: . TestAdd
- return a * b
+ return a - b
`
	ambiguous = `
mutant: ambiguous
breaks: one of two
file: toy.go
test: . TestAdd
- }
+ }}
`
	noGo = `
mutant: no-go
breaks: the compiler
file: toy.go
test: . TestAdd
- return a + b
+ return a + c
`
	hanging = `
mutant: hanging
breaks: the waking
file: toy.go
test: . TestWait
- ready <- true
`
	panicking = `
mutant: panicking
breaks: everything
file: toy.go
test: . TestAdd
- return a + b
+ panic("no sum")
`
	noTest = `
mutant: no-test
breaks: the sum
file: toy.go
test: . TestSubtract
- return a + b
+ return a - b
`
)

// hunted hunts the mutants of a list in the toy module.
func hunted(t *testing.T, o *options, lists ...string) (string, error) {
	t.Helper()
	t.Setenv("GOWORK", "off")
	list := filepath.Join(t.TempDir(), "list.txt")
	if err := os.WriteFile(list, []byte(strings.Join(lists, "")), 0o600); err != nil {
		t.Fatal(err)
	}
	o.dir, o.jobs = "testdata/toy", 2
	if o.limit == 0 {
		o.limit = time.Minute
	}
	if err := o.read("", []string{list}); err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	err := hunt(t.Context(), &out, o)
	return out.String(), err
}

// TestHunt_Fates runs go test for real.
func TestHunt_Fates(t *testing.T) {
	for _, tt := range []struct {
		name  string
		list  string
		fails bool
		want  []string
		last  string
	}{
		{name: "killed", list: killedOne, want: []string{"killed", "TestAdd_Adds"}, last: "1 mutants, 1 killed"},
		{name: "a panic kills", list: panicking, want: []string{"killed", "TestAdd_Adds"}, last: "1 mutants, 1 killed"},
		{name: "survived", list: survivor, fails: true, want: []string{"SURVIVED", "the name"}, last: "1 mutants, 0 killed"},
		{name: "does not apply", list: stale, fails: true, want: []string{"ERROR", "does not have these lines"}, last: "1 mutants, 0 killed"},
		{name: "applies twice", list: ambiguous, fails: true, want: []string{"ERROR", "has it twice"}, last: "1 mutants, 0 killed"},
		{name: "does not compile", list: noGo, fails: true, want: []string{"ERROR", "undefined: c"}, last: "1 mutants, 0 killed"},
		{name: "several", list: killedOne + survivor + noGo, fails: true, want: []string{"killed", "SURVIVED", "ERROR"}, last: "3 mutants, 1 killed"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			out, err := hunted(t, &options{}, tt.list)
			if (err != nil) != tt.fails {
				t.Errorf("error %v, want one: %v\n%s", err, tt.fails, out)
			}
			for _, want := range tt.want {
				if !strings.Contains(out, want) {
					t.Errorf("no %q in\n%s", want, out)
				}
			}
			if !strings.HasSuffix(out, "\n"+tt.last+"\n") {
				t.Errorf("the last line is not %q in\n%s", tt.last, out)
			}
		})
	}
}

func TestHunt_AHangingTestKills(t *testing.T) {
	out, err := hunted(t, &options{limit: 3 * time.Second}, hanging)
	if err != nil || !strings.Contains(out, "TestWait_Returns") {
		t.Errorf("%v\n%s", err, out)
	}
}

func TestHunt_WantsTheSourceGreenAndTheTestsThere(t *testing.T) {
	if out, err := hunted(t, &options{}, noTest); err == nil || strings.Contains(out, "killed") {
		t.Errorf("%v, though no test has that name\n%s", err, out)
	}
	dir := t.TempDir()
	if err := os.CopyFS(dir, os.DirFS("testdata/toy")); err != nil {
		t.Fatal(err)
	}
	red := []byte("package toy\n\nimport \"testing\"\n\nfunc TestAdd_IsRed(t *testing.T) { t.Error(\"red\") }\n")
	if err := os.WriteFile(filepath.Join(dir, "red_test.go"), red, 0o600); err != nil {
		t.Fatal(err)
	}
	list, err := parse(killedOne)
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("GOWORK", "off")
	var out strings.Builder
	if err := hunt(t.Context(), &out, &options{dir: dir, jobs: 1, limit: time.Minute, mutants: list}); err == nil || strings.Contains(out.String(), "killed") {
		t.Errorf("%v, though the source fails its tests\n%s", err, &out)
	}
}

func TestHunt_LeavesTheSourceAloneAndWritesATable(t *testing.T) {
	before, err := os.ReadFile("testdata/toy/toy.go")
	if err != nil {
		t.Fatal(err)
	}
	o := &options{table: filepath.Join(t.TempDir(), "table.md")}
	hunted(t, o, "== sums\n", killedOne, "== names\n", survivor)
	if after, _ := os.ReadFile("testdata/toy/toy.go"); string(after) != string(before) {
		t.Error("the source was changed")
	}
	table, err := os.ReadFile(o.table)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"2 mutants, 1 killed.", "## sums", "| minus | the sum | `TestAdd_Adds` |", "## names", "**SURVIVED**"} {
		if !strings.Contains(string(table), want) {
			t.Errorf("no %q in\n%s", want, table)
		}
	}
}

func TestRead_SelectsByNameAndRefusesDoubles(t *testing.T) {
	dir := t.TempDir()
	list := filepath.Join(dir, "list.txt")
	if err := os.WriteFile(list, []byte(killedOne+survivor), 0o600); err != nil {
		t.Fatal(err)
	}
	var o options
	if err := o.read("min", []string{list}); err != nil || len(o.mutants) != 1 || o.mutants[0].name != "minus" {
		t.Errorf("%v, %+v; want minus alone", err, o.mutants)
	}
	if err := new(options).read("", []string{list, list}); err == nil {
		t.Error("one name twice was no error")
	}
	if err := new(options).read("nobody", []string{list}); err == nil {
		t.Error("no mutant at all was no error")
	}
}

func TestApply_NamesEveryMutantThatDoesNot(t *testing.T) {
	list, err := parse(killedOne + stale + noGo + ambiguous)
	if err != nil {
		t.Fatal(err)
	}
	err = (&options{dir: "testdata/toy", mutants: list}).apply()
	if err == nil || !strings.Contains(err.Error(), "mutant stale") || !strings.Contains(err.Error(), "mutant ambiguous") || strings.Contains(err.Error(), "minus") {
		t.Errorf("%v, want stale and ambiguous alone", err)
	}
}

func TestParse_Refuses(t *testing.T) {
	for _, tt := range []struct{ name, text, want string }{
		{"a line before the first mutant", "file: x.go\n", "before the first"},
		{"no words", strings.Replace(killedOne, "breaks: the sum\n", "", 1), "does not say what it breaks"},
		{"no file", strings.Replace(killedOne, "file: toy.go\n", "", 1), "changes no file"},
		{"no test", strings.NewReplacer("test: . TestName\n", "", "test: . TestAdd\n", "").Replace(killedOne), "has no test"},
		{"no change", "mutant: m\nbreaks: b\nfile: f.go\ntest: . T\n", "changes nothing"},
		{"nowhere", "mutant: m\nbreaks: b\nfile: f.go\ntest: . T\n+ x\n", "where its change goes"},
		{"an unmarked line", killedOne + "return\n", "is a mark missing"},
		{"an unknown word", "mutant: m\ncolour: red\n", "no part of a mutant"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if _, err := parse(tt.text); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%v, want %q", err, tt.want)
			}
		})
	}
}

func TestApply_ChangesWholeLinesWherever(t *testing.T) {
	list, err := parse("mutant: m\nbreaks: b\nfile: f.go\ntest: . T\n  if a {\n- b()\n+ c()\n@@\n- last\n")
	if err != nil {
		t.Fatal(err)
	}
	got, err := list[0].apply("b()\n\tif a {\n\t\tb()\n\t}\nlast\nend\n")
	if want := "b()\n if a {\n c()\n\t}\nend\n"; err != nil || got != want {
		t.Errorf("%q, %v; want %q", got, err, want)
	}
}

func TestSelectsAny_ByLevel(t *testing.T) {
	names := []string{"TestA", "TestA/one", "TestB/two"}
	for pattern, want := range map[string]bool{
		"^TestA$": true, "TestA$/^one$": true, "TestA/two": false, "TestC|TestB": true, "TestC|TestA$/on": true, "TestC": false, "TestA/one/deeper": false,
	} {
		if got, err := selectsAny(pattern, names); got != want || err != nil {
			t.Errorf("%s: %v, %v; want %v", pattern, got, err, want)
		}
	}
	if _, err := selectsAny("[", names); err == nil {
		t.Error("a pattern that is none was no error")
	}
}
