package toy

import "testing"

func TestAdd_Adds(t *testing.T) {
	if got := Add(2, 3); got != 5 {
		t.Errorf("Add(2, 3) = %d", got)
	}
}

func TestName_IsCalled(t *testing.T) { Name() }

func TestWait_Returns(t *testing.T) { Wait() }
