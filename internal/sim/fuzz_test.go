package sim

import "testing"

// FuzzParsePlan reads scenarios that anybody may have written. What is taken has one text
// form, which is taken again and stays as it is.
func FuzzParsePlan(f *testing.F) {
	f.Add("seed 7\nset instances=3\nat 1s crash 1\nat 10s end\n")
	f.Add("# nothing\n\nset\n")
	f.Add("at -5s end\nseed 18446744073709551615\n")
	f.Fuzz(func(t *testing.T, text string) {
		p, err := ParsePlan(text)
		if err != nil {
			return
		}
		once := p.String()
		again, err := ParsePlan(once)
		if err != nil {
			t.Fatalf("%q was written as %q, which is refused: %v", text, once, err)
		}
		if twice := again.String(); twice != once {
			t.Errorf("%q is written as %q, and that as %q", text, once, twice)
		}
	})
}
