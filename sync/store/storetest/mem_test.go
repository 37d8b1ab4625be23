package storetest_test

import (
	"testing"

	"github.com/peers-run/peers-runtime/sync/store"
	"github.com/peers-run/peers-runtime/sync/store/storetest"
)

func TestMem(t *testing.T) {
	storetest.Run(t, func(*testing.T) store.DB { return storetest.NewMem() })
}

func TestMemStrict(t *testing.T) {
	storetest.Run(t, func(*testing.T) store.DB { return storetest.NewMem().Strict() })
}
