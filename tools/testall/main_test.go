package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestRun_Verdicts runs go test for real on small modules.
func TestRun_Verdicts(t *testing.T) {
	for _, tt := range []struct {
		name   string
		body   string // of the test file, after its imports
		noSkip bool
		fails  bool
		want   []string
		wantNo []string
	}{
		{
			name: "passing", body: `func TestA(t *testing.T) { t.Log("chatter") }`,
			want: []string{"ok  \tx", "1 passed, 0 failed, 0 skipped", "all 1 modules passed"}, wantNo: []string{"chatter"},
		},
		{
			name: "failing", body: `func TestA(t *testing.T) { t.Error("the reason") }`, fails: true,
			want: []string{"the reason", "FAIL\tx", "0 passed, 1 failed"},
		},
		{
			name: "skip is tolerated", body: `func TestA(t *testing.T) { t.Skip("no server") }`,
			want: []string{"skipped: x.TestA", "no server", "1 skipped", "all 1 modules passed"},
		},
		{
			name: "skip is a failure", body: `func TestA(t *testing.T) { t.Skip("no server") }`, noSkip: true, fails: true,
			want: []string{"skipped: x.TestA", "no server", "FAILED"},
		},
		{
			name: "tests are told", body: `func TestA(t *testing.T) { if os.Getenv("CARILLON_NO_SKIP") != "1" { t.Fatal("not told") } }`, noSkip: true,
			want: []string{"1 passed"},
		},
		{
			name: "panic", body: `func TestA(t *testing.T) { panic("out of the blue") }`, fails: true,
			want: []string{"out of the blue", "FAILED"},
		},
		{
			name: "exit", body: `func TestA(t *testing.T) { println("last words"); os.Exit(3) }`, fails: true,
			want: []string{"FAIL\tx", "FAILED"},
		},
		{
			name: "does not compile", body: `func TestA(t *testing.T) { nonsense }`, fails: true,
			want: []string{"undefined: nonsense", "FAILED"},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			write(t, dir, "go.mod", "module x\n\ngo 1.25.0\n")
			write(t, dir, "x_test.go", "package x\n\nimport (\n\t\"os\"\n\t\"testing\"\n)\n\nvar _ = os.Exit\n\n"+tt.body+"\n")
			t.Setenv("GOWORK", "off")
			t.Setenv("CARILLON_NO_SKIP", "")
			var out strings.Builder
			err := run(&out, units([]string{dir}, false), []string{"-count=1"}, tt.noSkip)
			if (err != nil) != tt.fails {
				t.Errorf("run returned %v, want failure %v", err, tt.fails)
			}
			for _, s := range tt.want {
				if !strings.Contains(out.String(), s) {
					t.Errorf("the output lacks %q:\n%s", s, &out)
				}
			}
			for _, s := range tt.wantNo {
				if strings.Contains(out.String(), s) {
					t.Errorf("the output has %q:\n%s", s, &out)
				}
			}
		})
	}
}

func TestRun_GoesOnAfterAFailure(t *testing.T) {
	t.Setenv("GOWORK", "off")
	bad, good := t.TempDir(), t.TempDir()
	for _, dir := range []string{bad, good} {
		write(t, dir, "go.mod", "module x\n\ngo 1.25.0\n")
	}
	write(t, bad, "x_test.go", "package x\n\nimport \"testing\"\n\nfunc TestA(t *testing.T) { t.Fail() }\n")
	write(t, good, "x_test.go", "package x\n\nimport \"testing\"\n\nfunc TestA(t *testing.T) {}\n")
	var out strings.Builder
	err := run(&out, units([]string{bad, good}, false), nil, false)
	if err == nil || !strings.Contains(err.Error(), bad) || strings.Contains(err.Error(), good) {
		t.Errorf("run returned %v, want an error that names %s alone", err, bad)
	}
	if !strings.Contains(out.String(), "ok  \tx") {
		t.Errorf("the second module was not tested:\n%s", &out)
	}
}

func TestRun_TestsAWorkspaceTogether(t *testing.T) {
	root := t.TempDir()
	var dirs []string
	for _, name := range []string{"a", "b", "c"} {
		dir := filepath.Join(root, name)
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		write(t, dir, "go.mod", "module "+name+"\n\ngo 1.25.0\n")
		body := "t.Log()"
		if name == "b" {
			body = "t.Error(\"the reason\")"
		}
		write(t, dir, "x_test.go", "package x\n\nimport \"testing\"\n\nfunc TestA(t *testing.T) { "+body+" }\n")
		dirs = append(dirs, dir)
	}
	write(t, root, "go.work", "go 1.25.0\n\nuse (\n\t./a\n\t./b\n\t./c\n)\n")
	t.Chdir(root)
	t.Setenv("GOWORK", "")
	var out strings.Builder
	if err := run(&out, units(dirs, true), []string{"-count=1"}, false); err == nil {
		t.Error("run returned nil, though a test failed")
	}
	for _, s := range []string{"ok  \ta", "FAIL\tb", "the reason", "ok  \tc", "3 modules: FAILED, 2 passed, 1 failed, 0 skipped"} {
		if !strings.Contains(out.String(), s) {
			t.Errorf("the output lacks %q:\n%s", s, &out)
		}
	}
}

func write(t *testing.T, dir, name, text string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}
