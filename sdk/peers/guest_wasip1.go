package peers

//go:wasmexport peers_event
func peersEvent(kind int32, id int64, size int32) int32 {
	return dispatch(&registered, sys{}, EventKind(kind), id, size)
}
