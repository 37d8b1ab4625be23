package hostabitest

import "testing"

func TestMemory(t *testing.T) {
	TestStore(t, func(*testing.T) Backend {
		w := NewWorld(SuiteSchema(), NewClock())
		return Backend{Store: w.Store, Other: w.Other}
	})
}
