module differ

go 1.26.0

require github.com/peers-run/peers-runtime/sdk/peers v0.0.0

replace github.com/peers-run/peers-runtime/sdk/peers => ../../../../sdk/peers
