package control

import "github.com/peers-run/peers-runtime/internal/cborx"

// encodeClear encodes the clear part of a body.
func encodeClear(body any) (kind uint64, b []byte) {
	switch v := body.(type) {
	case create:
		b = cborx.AppendBytes(cborx.AppendArray(b, 2), v.Owner[:])
		return KindCreate, appendEpoch(b, v.Epoch)
	case addUser:
		b = cborx.AppendBytes(cborx.AppendArray(b, 2), v.User[:])
		return KindAddUser, cborx.AppendUint(b, uint64(v.Role))
	case setRole:
		b = cborx.AppendBytes(cborx.AppendArray(b, 3), v.User[:])
		b = cborx.AppendUint(b, uint64(v.Role))
		return KindSetRole, appendCuts(b, v.Cuts)
	case removeUser:
		b = cborx.AppendBytes(cborx.AppendArray(b, 2), v.User[:])
		return KindRemoveUser, appendCuts(b, v.Cuts)
	case appInstalled:
		b = cborx.AppendBytes(cborx.AppendArray(b, 2), v.Epoch[:])
		return KindAppInstalled, cborx.AppendBytes(b, v.Namespace[:])
	case appRemoved:
		return KindAppRemoved, cborx.AppendBytes(cborx.AppendArray(b, 1), v.Namespace[:])
	case epoch:
		return KindEpoch, appendEpoch(b, v)
	case sealOp:
		b = cborx.AppendBytes(cborx.AppendArray(b, 3), v.Epoch[:])
		b = cborx.AppendBytes(b, v.Recipient[:])
		return KindSeal, cborx.AppendBytes(b, v.Key)
	case closeOp:
		b = cborx.AppendUint(cborx.AppendArray(b, 3), uint64(v.Type))
		b = cborx.AppendBytes(b, v.Subject[:])
		return KindClose, appendCuts(b, v.Cuts)
	case frontier:
		b = cborx.AppendBytes(cborx.AppendArray(b, 2), v.Namespace[:])
		return KindFrontier, appendCuts(b, v.Cuts)
	}
	panic("control: a body without a layout") // bodies are this package's own
}

func appendEpoch(b []byte, e epoch) []byte {
	b = cborx.AppendBytes(cborx.AppendArray(b, 3), e.Commitment[:])
	b = cborx.AppendArray(b, len(e.Seals))
	for _, s := range e.Seals {
		b = cborx.AppendBytes(cborx.AppendArray(b, 2), s.Recipient[:])
		b = cborx.AppendBytes(b, s.Key)
	}
	b = cborx.AppendArray(b, len(e.Wraps))
	for _, w := range e.Wraps {
		b = cborx.AppendBytes(cborx.AppendArray(b, 2), w.Epoch[:])
		b = cborx.AppendBytes(b, w.Wrapped)
	}
	return b
}

func appendCuts(b []byte, cuts []Cut) []byte {
	b = cborx.AppendArray(b, len(cuts))
	for _, c := range cuts {
		b = cborx.AppendBytes(cborx.AppendArray(b, 5), c.Stream.Namespace[:])
		b = cborx.AppendBytes(b, c.Stream.Device[:])
		b = cborx.AppendUint(b, c.Stream.Incarnation)
		b = cborx.AppendUint(b, c.Seq)
		b = cborx.AppendBytes(b, c.Hash[:])
	}
	return b
}

func appendInstall(b []byte, in install) []byte {
	b = cborx.AppendBytes(cborx.AppendArray(b, 5), in.Publisher[:])
	b = cborx.AppendText(b, in.App)
	b = cborx.AppendUint(b, in.Seq)
	b = cborx.AppendBytes(b, in.Index[:])
	b = cborx.AppendArray(b, len(in.Collections))
	for _, c := range in.Collections {
		b = cborx.AppendUint(b, uint64(c))
	}
	return b
}

func compareSealed(a, b sealed) int { return a.Recipient.Compare(b.Recipient) }
func compareWraps(a, b wrap) int    { return a.Epoch.Compare(b.Epoch) }
func compareCuts(a, b Cut) int      { return a.Stream.Compare(b.Stream) }
