package cms

import (
	"context"
	"errors"
	"testing"
)

func value[V any](v V) func(context.Context) (V, error) {
	return func(context.Context) (V, error) { return v, nil }
}

func TestMemo_LoadsOnceUntilDropped(t *testing.T) {
	var m memo[string, int]
	for _, step := range []struct {
		drop string
		load int
		want int
		hit  bool
	}{
		{load: 1, want: 1},
		{load: 2, want: 1, hit: true},
		{drop: "other", load: 2, want: 1, hit: true},
		{drop: "key", load: 2, want: 2},
		{load: 3, want: 2, hit: true},
	} {
		if step.drop != "" {
			m.drop(step.drop)
		}
		got, hit, err := m.get(t.Context(), "key", value(step.load))
		if got != step.want || hit != step.hit || err != nil {
			t.Errorf("after %+v: %d, hit %v, %v", step, got, hit, err)
		}
	}
	m.clear()
	if _, hit, _ := m.get(t.Context(), "key", value(4)); hit {
		t.Error("hit after clear")
	}
}

// The entry is dropped while it is being loaded, which the load cannot know.
func TestMemo_KeepsNothingThatWasDroppedWhileItLoaded(t *testing.T) {
	for name, forget := range map[string]func(*memo[string, int]){
		"drop":  func(m *memo[string, int]) { m.drop("key") },
		"clear": func(m *memo[string, int]) { m.clear() },
	} {
		t.Run(name, func(t *testing.T) {
			var m memo[string, int]
			got, _, err := m.get(t.Context(), "key", func(context.Context) (int, error) {
				forget(&m)
				return 1, nil // read before the change that the event told of
			})
			if got != 1 || err != nil {
				t.Fatalf("get = %d, %v", got, err)
			}
			if got, hit, _ := m.get(t.Context(), "key", value(2)); got != 2 || hit {
				t.Errorf("the next get = %d, hit %v, want a fresh load of 2", got, hit)
			}
		})
	}
}

func TestMemo_FillKeepsNothingThatWasDroppedWhileItLoaded(t *testing.T) {
	var m memo[string, int]
	load := func(forget bool) func() (map[string]int, error) {
		return func() (map[string]int, error) {
			if forget {
				m.drop("key")
			}
			return map[string]int{"key": 1}, nil
		}
	}
	if err := m.fill(load(true)); err != nil || m.len() != 0 {
		t.Errorf("dropped during fill: %d entries, %v", m.len(), err)
	}
	if err := m.fill(load(false)); err != nil || m.len() != 1 {
		t.Errorf("after fill: %d entries, %v", m.len(), err)
	}
}

func TestMemo_KeepsNoErrors(t *testing.T) {
	var m memo[string, int]
	boom := errors.New("boom")
	if _, _, err := m.get(t.Context(), "key", func(context.Context) (int, error) { return 0, boom }); !errors.Is(err, boom) {
		t.Fatalf("err = %v", err)
	}
	if got, hit, err := m.get(t.Context(), "key", value(1)); got != 1 || hit || err != nil {
		t.Errorf("after an error: %d, hit %v, %v", got, hit, err)
	}
}

func TestMemo_IsBounded(t *testing.T) {
	var m memo[int, int]
	for i := range 3 * memoLimit {
		if _, _, err := m.get(t.Context(), i, value(i)); err != nil {
			t.Fatal(err)
		}
	}
	if m.len() != memoLimit {
		t.Errorf("%d entries, want %d", m.len(), memoLimit)
	}
}
