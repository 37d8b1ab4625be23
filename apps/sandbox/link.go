package sandbox

import (
	"context"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"

	"github.com/peers-run/peers-runtime/hostabi"
)

// instanceKey finds the instance that called in its context.
type instanceKey struct{}

func instanceOf(ctx context.Context) *instance {
	in, _ := ctx.Value(instanceKey{}).(*instance)
	return in
}

// link instantiates the host's modules in a runtime: one module for every
// peers:<module>/v1 and the cut-down WASI.
func link(ctx context.Context, rt wazero.Runtime) error {
	builders := map[string]wazero.HostModuleBuilder{}
	var order []string
	builder := func(module string) wazero.HostModuleBuilder {
		b := builders[module]
		if b == nil {
			b = rt.NewHostModuleBuilder(module)
			builders[module] = b
			order = append(order, module)
		}
		return b
	}
	for _, f := range hostabi.Functions() {
		if !f.Guest {
			continue
		}
		params, results := wasmTypes(&f)
		builder(f.ImportModule()).NewFunctionBuilder().WithGoModuleFunction(hostFunc(&f), params, results).Export(f.Name)
	}
	calls := wasiCalls()
	for _, f := range hostabi.WASI() {
		var results []api.ValueType
		if f.Errno {
			results = []api.ValueType{api.ValueTypeI32}
		}
		builder(wasiModule).NewFunctionBuilder().
			WithGoModuleFunction(wasiFunc(calls[f.Name], f.Errno), paramTypes(f.Params), results).Export(f.Name)
	}
	for _, module := range order {
		if _, err := builders[module].Instantiate(ctx); err != nil {
			return err
		}
	}
	return nil
}

// hostFunc carries a call over to hostabi.
func hostFunc(f *hostabi.Func) api.GoModuleFunc {
	return func(ctx context.Context, mod api.Module, stack []uint64) {
		instanceOf(ctx).guest.Call(ctx, f, mod.Memory(), stack)
	}
}

func wasmTypes(f *hostabi.Func) (params, results []api.ValueType) {
	results = []api.ValueType{api.ValueTypeI32}
	if f.Wide {
		results[0] = api.ValueTypeI64
	}
	return paramTypes(f.Params), results
}

func paramTypes(ps []hostabi.Param) []api.ValueType {
	var out []api.ValueType
	for _, p := range ps {
		switch p {
		case hostabi.ParamI64:
			out = append(out, api.ValueTypeI64)
		case hostabi.ParamBytes, hostabi.ParamOut:
			out = append(out, api.ValueTypeI32, api.ValueTypeI32)
		default:
			out = append(out, api.ValueTypeI32)
		}
	}
	return out
}
