package identity

import (
	"testing"

	"github.com/peers-run/peers-runtime/internal/fault"
	"github.com/peers-run/peers-runtime/internal/fault/faulttest"
	"github.com/peers-run/peers-runtime/keys"
)

// TestWhoMayRevoke tries every pair of a family: a device may revoke only devices
// it certified, directly or through others; any other revocation takes the
// recovery key. What may not be built, and is signed all the same, ends nothing.
//
//	first ─┬─ laptop ── tablet ── phone
//	       ├─ desktop
//	       └─ camera (data)
func TestWhoMayRevoke(t *testing.T) {
	names := []string{"first", "laptop", "tablet", "phone", "desktop", "camera", "recovery", "stranger"}
	may := map[string][]string{
		"first":    {"laptop", "tablet", "phone", "desktop", "camera"},
		"laptop":   {"tablet", "phone"},
		"tablet":   {"phone"},
		"recovery": {"first", "laptop", "tablet", "phone", "desktop", "camera"},
	}
	for _, by := range names {
		for _, of := range names {
			f := newFamily(t)
			kp := map[string]*keys.KeyPair{
				"first": f.first, "recovery": f.recovery, "laptop": pair(10), "tablet": pair(20),
				"phone": pair(30), "desktop": pair(40), "camera": pair(50), "stranger": pair(60),
			}
			f.certify(f.first, kp["laptop"], PowerFull)
			f.certify(kp["laptop"], kp["tablet"], PowerFull)
			f.certify(kp["tablet"], kp["phone"], PowerFull)
			f.certify(f.first, kp["desktop"], PowerFull)
			f.certify(f.first, kp["camera"], PowerData)
			allowed := map[string]bool{}
			for _, x := range may[by] {
				allowed[x] = true
			}
			s := f.state()
			if got := s.MayRevoke(kp[by].ID(), kp[of].ID()); got != allowed[of] {
				t.Errorf("%s may revoke %s: %v", by, of, got)
			}
			if _, err := s.NewRevoke(kp[by], kp[of].ID(), nil); allowed[of] && err != nil {
				t.Errorf("%s revokes %s: %v", by, of, err)
			} else if !allowed[of] {
				faulttest.Want(t, err, fault.Denied, "cannot revoke the device: ", "use the 24 recovery words")
			}
			before := map[string]string{}
			for _, n := range names {
				before[n] = f.standing(kp[n])
			}
			f.revoke(kp[by], kp[of])
			for _, n := range names {
				want := before[n]
				if n == of && allowed[of] {
					want = "revoked" // and what it certified before stays
				}
				if got := f.standing(kp[n]); got != want {
					t.Errorf("%s revoked %s: %s is %s, want %s", by, of, n, got, want)
				}
			}
		}
	}
}

// A revocation alone leaves what a device did before, and voids what it does
// after and beside, whatever op it is.
func TestRevokedDevicesOps(t *testing.T) {
	f := newFamily(t)
	laptop, before, later, phone := pair(10), pair(20), pair(30), pair(40)
	f.certify(f.first, laptop, PowerFull)
	f.certify(laptop, phone, PowerFull)
	at := f.certify(laptop, before, PowerData)
	f.revoke(f.first, laptop, at)
	f.certify(laptop, later, PowerFull)
	f.revoke(laptop, phone, at)
	f.revoke(laptop, before)
	f.want("certified before", before, "data")
	f.want("certified after", later, "void")
	f.want("revoked beside", phone, "full")
	if s := f.state(); s.MayCertify(laptop.ID()) || s.MayRevoke(laptop.ID(), phone.ID()) {
		t.Error("a revoked device still may")
	}
}

// Names of devices are data of the personal group: a certification has no room for one.
func TestNoNamesInTheLog(t *testing.T) {
	f := newFamily(t)
	phone := pair(20)
	clear := certifyClear(f.first.ID(), f.user, phone, PowerFull)
	clear[0]++ // an array of one more
	f.sign(f.first, KindCertify, append(clear, "\x68my phone"...), nil)
	f.want("the phone", phone, "unknown")
	ops := f.set.View().Ops()
	if _, ok := ops[len(ops)-1].Body.(Malformed); !ok {
		t.Errorf("a certification with a name is read as %T", ops[len(ops)-1].Body)
	}
}
