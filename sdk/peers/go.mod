module github.com/peers-run/peers-runtime/sdk/peers

go 1.26.0
