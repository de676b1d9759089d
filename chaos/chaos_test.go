//go:build linux

package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/go-sql-driver/mysql"

	"github.com/carillon-go/carillon/chaos/internal/cluster"
	"github.com/carillon-go/carillon/chaos/internal/labtest"
	"github.com/carillon-go/carillon/chaos/internal/scenario"
	"github.com/carillon-go/carillon/chaos/internal/worker"
	"github.com/carillon-go/carillon/internal/history"
)

// TestMain runs the tests, or one of the processes that they start, which so are
// watched by the race detector too.
func TestMain(m *testing.M) {
	if os.Getenv(cluster.WorkerVariable) != "" {
		os.Exit(worker.Run(os.Stdin, os.Stdout))
	}
	mysql.SetLogger(&mysql.NopLogger{})
	os.Exit(m.Run())
}

func TestScenarios_KeepThePromise(t *testing.T) {
	labtest.Need(t)
	t.Parallel() // it mostly waits
	if testing.Short() {
		t.Skip("takes half a minute")
	}
	short := map[string]bool{"loss-5": true, "kill": true, "duplicate": true}
	for _, s := range scenario.Table() {
		if !short[s.Name] {
			continue
		}
		delete(short, s.Name)
		s.Load, s.Rate = 4*time.Second, 200
		t.Run(s.Name, func(t *testing.T) {
			t.Parallel()
			o, err := scenario.Run(t.Context(), s, scenario.Options{Keep: filepath.Join(t.TempDir(), "kept"), Seed: 1})
			if err != nil {
				t.Fatal(err)
			}
			t.Log(o)
			if !o.Good() {
				t.Errorf("%v\n%s", o, o.Explain())
			}
		})
	}
	if len(short) > 0 {
		t.Errorf("there are no scenarios %v", short)
	}
}

// A judge that finds nothing wrong must be able to.
func TestRun_SeesWhatIsWrongWithAHistory(t *testing.T) {
	labtest.Need(t)
	t.Parallel() // it mostly waits
	folder := filepath.Join(t.TempDir(), "kept")
	kept := errors.New("so that the histories are kept")
	o, err := scenario.Run(t.Context(), scenario.Scenario{
		Name: "short", Instances: 2, Load: time.Second, Rate: 100, Window: time.Second,
		Expect: []scenario.Expectation{func(*scenario.Outcome) error { return kept }},
	}, scenario.Options{Keep: folder, Seed: 1})
	if err != nil {
		t.Fatal(err)
	}
	if !o.Verdict.Holds() || len(o.Problems) != 1 || o.Problems[0] != kept.Error() {
		t.Fatalf("%v\n%s", o, o.Explain())
	}
	const raised = `"k":"raised"`
	for _, tt := range []struct {
		name   string
		change func(line []byte) []byte // of one record of a Raised
		rule   history.Rule
	}{
		{"left out", func([]byte) []byte { return nil }, history.Silent},
		{"told twice", func(line []byte) []byte { return append(bytes.Clone(line), line...) }, history.Twice},
		{"another event", func(line []byte) []byte { return bytes.Replace(line, []byte(`"event":"`), []byte(`"event":"an`), 1) }, history.Payload},
		{"never raised", func(line []byte) []byte { return bytes.Replace(line, []byte(`"from":"run`), []byte(`"from":"run9`), 1) }, history.Phantom},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var files [][]history.Record
			changed := false
			for _, path := range histories(t, folder) {
				text, err := os.ReadFile(path)
				if err != nil {
					t.Fatal(err)
				}
				var with []byte
				lines, n := bufio.NewScanner(bytes.NewReader(text)), 0
				for lines.Scan() {
					line := append(bytes.Clone(lines.Bytes()), '\n')
					if bytes.Contains(line, []byte(raised)) {
						if n++; n == 20 && !changed { // neither the first nor the last
							line, changed = tt.change(line), true
						}
					}
					with = append(with, line...)
				}
				records, err := history.Read(bytes.NewReader(with))
				if err != nil {
					t.Fatal(err)
				}
				files = append(files, records)
			}
			v := history.Check(history.Merge(files...), time.Second+4500*time.Millisecond)
			if !changed || v.Holds() || v.Violations[0].Rule != tt.rule {
				t.Errorf("changed: %v; %v", changed, &v)
			}
		})
	}
}

func histories(t *testing.T, folder string) []string {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join(folder, "*.history"))
	if err != nil || len(paths) != 3 {
		t.Fatalf("histories %v, %v", paths, err)
	}
	return paths
}

// A process that ends by itself is not taken for one that the harness killed.
func TestRun_NoticesAProcessThatDies(t *testing.T) {
	labtest.Need(t)
	t.Parallel() // it mostly waits
	_, err := scenario.Run(t.Context(), scenario.Scenario{
		Name: "dying", Instances: 2, Load: 10 * time.Second,
		Play: func(s *scenario.Stage) {
			if err := syscall.Kill(s.Instances[1].PID(), syscall.SIGKILL); err != nil {
				t.Error(err)
			}
		},
	}, scenario.Options{Keep: filepath.Join(t.TempDir(), "kept"), Seed: 1})
	if err == nil || !strings.Contains(err.Error(), "run 2 ended with signal: killed") {
		t.Errorf("Run says %v", err)
	}
}

func TestCommand_RefusesWhatItDoesNotKnow(t *testing.T) {
	for _, args := range [][]string{{}, {"walk"}, {"run", "-run", "("}, {"run", "-run", "no such scenario"}} {
		if good, err := command(context.Background(), args, new(strings.Builder)); good || err == nil {
			t.Errorf("chaos %q: %v, %v", args, good, err)
		}
	}
	var out strings.Builder
	if good, err := command(context.Background(), []string{"list"}, &out); !good || err != nil || !strings.Contains(out.String(), "loss-50") {
		t.Errorf("chaos list: %v, %v\n%s", good, err, out.String())
	}
}
