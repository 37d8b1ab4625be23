// Package control is the local API: how the command line, the dashboard and
// scripts of this machine's user speak to a running node.
//
// It listens on 127.0.0.1 and [::1] on one stable port and nowhere else. A call
// is POST /api/v1/<name> with a JSON body and answer; an error is a JSON Problem
// with a status of 400 or above. Every call needs the bearer token, which lives
// in the server's memory: the command line reads it from a 0600 file in the home
// (FileAPI) and tells it to a connection whose other end has proved that it knows
// it, a browser gets it for a one-time code that is printed in the
// dashboard's address, after the '#', where no server or log sees it. Host and
// Origin are checked, so that a page of another origin, by DNS rebinding or not,
// learns nothing. There are no cookies.
//
// docs/spec/local-api.md lists the calls.
package control

import (
	"encoding/json"
	"time"
)

// FileAPI is the file in a home that says where its API is, while it runs.
const FileAPI = "api.json"

// An Address is the content of FileAPI.
type Address struct {
	URL   string `json:"url"`
	Token string `json:"token"`
}

// A Problem is an error on the wire.
type Problem struct {
	Error string `json:"error"`
	Hint  string `json:"hint,omitempty"`
	Code  string `json:"code"` // fault.Code's name
}

// Status is the answer of "status".
type Status struct {
	Version  string      `json:"version"`
	Home     string      `json:"home"`
	Device   string      `json:"device"`
	User     string      `json:"user,omitempty"` // absent: unclaimed
	Group    string      `json:"group,omitempty"`
	Port     int         `json:"port"`
	Words    *Words      `json:"words,omitempty"` // absent unless they are still to be saved
	Devices  []Device    `json:"devices"`
	Spaces   []Space     `json:"namespaces"`
	Pairing  *Pairing    `json:"pairing,omitempty"`
	Warnings []string    `json:"warnings,omitempty"`
	Apps     []AppStatus `json:"apps"`
}

// Words says that the recovery words wait to be saved.
type Words struct {
	File string `json:"file"`
}

// A Device is one of the user's devices.
type Device struct {
	ID        string `json:"id"`
	Name      string `json:"name,omitempty"`
	Self      bool   `json:"self,omitempty"`
	Power     string `json:"power"`
	Revoked   bool   `json:"revoked,omitempty"`
	Connected bool   `json:"connected"`
	How       string `json:"how"`               // how it is connected, or why not, in a sentence
	SkewMS    int64  `json:"skew_ms,omitempty"` // its clock minus ours
	Sent      uint64 `json:"sent,omitempty"`    // bytes on the connections that stand
	Received  uint64 `json:"received,omitempty"`
}

// A Space is the sync state of one namespace.
type Space struct {
	ID      string      `json:"id"`
	App     string      `json:"app,omitempty"` // if known here
	Records uint64      `json:"records"`
	Batches uint64      `json:"batches"`
	Digest  string      `json:"digest"`
	Vector  string      `json:"vector"`
	Settled bool        `json:"settled"`         // every stored batch is applied
	Waits   []Waiting   `json:"waits,omitempty"` // streams that are not applied to their end
	Peers   []SpacePeer `json:"peers,omitempty"` // with whom it is equal, or how far it is
}

// Waiting is a stream that is stored and not applied to its end.
type Waiting struct {
	Device  string    `json:"device"`
	Batches uint64    `json:"batches"`
	Reason  string    `json:"reason"`
	Due     time.Time `json:"due,omitzero"`
}

// A SpacePeer is how far a namespace is in step with a connected device.
type SpacePeer struct {
	Device string    `json:"device"`
	Equal  time.Time `json:"equal,omitzero"` // since when both are equal, verified by digest
	Drift  bool      `json:"drift,omitempty"`
	ToGet  uint64    `json:"to_get,omitempty"`  // batches
	ToSend uint64    `json:"to_send,omitempty"` // batches

	Stalled []Stall `json:"stalled,omitempty"` // streams of which no more is taken from the device
}

// A Stall is a device's stream that exceeds a quota here.
type Stall struct {
	Device string `json:"device"`
	Reason string `json:"reason"`
}

// Pairing is the pairing under way, or the last one.
type Pairing struct {
	Peer          string `json:"peer"`
	Inviting      bool   `json:"inviting"`
	Digits        string `json:"digits,omitempty"`
	Confirmed     bool   `json:"confirmed"`
	PeerConfirmed bool   `json:"peer_confirmed"`
	Done          bool   `json:"done"`
	Error         string `json:"error,omitempty"`
	Hint          string `json:"hint,omitempty"`
}

// AppStatus is an installed app, or one that waits for approval.
type AppStatus struct {
	ID        string `json:"id"`
	Publisher string `json:"publisher"`
	Name      string `json:"name"`
	Version   string `json:"version,omitempty"`
	Seq       uint64 `json:"seq"`
	State     string `json:"state"`
	Reason    string `json:"reason,omitempty"`
	Namespace string `json:"namespace"`
}

// InitRequest asks for a new user.
type InitRequest struct {
	RecoveryOut string `json:"recovery_out"` // file for the 24 words; must not exist
}

// Invite is the answer of "pair.invite".
type Invite struct {
	Link    string    `json:"link"`
	QR      string    `json:"qr"` // the link in letters a QR code holds densely
	Expires time.Time `json:"expires"`
}

// JoinRequest asks to join the user of an invite. The answer comes when the
// pairing has ended.
type JoinRequest struct {
	Link string `json:"link"`
}

// AnswerRequest is what the person here decided about the digits.
type AnswerRequest struct {
	Digits string `json:"digits"`
	Yes    bool   `json:"yes"`
}

// RecoverRequest asks to come back with the 24 words.
type RecoverRequest struct {
	Words string `json:"words"`
	At    string `json:"at"` // host:port or DeviceID of any device of the user
}

// NameRequest names a device.
type NameRequest struct {
	Device string `json:"device"` // empty: this one
	Name   string `json:"name"`
}

// A Target names a collection of an app's data.
type Target struct {
	App        string `json:"app"` // its id, or publisher/id
	Collection string `json:"collection"`
}

// GetRequest asks for one record.
type GetRequest struct {
	Target
	Record string `json:"record"`
}

// A Record is a record with its fields by name. Values are JSON's own for null,
// bool, number and text; {"time": RFC 3339}, {"bytes": base64}, {"ref": id} and
// {"compound": [...]} for the other kinds.
type Record struct {
	ID     string                     `json:"id"`
	Fields map[string]json.RawMessage `json:"fields"`
}

// QueryRequest asks for a page of records.
type QueryRequest struct {
	Target
	Index      string            `json:"index,omitempty"`
	Equal      []json.RawMessage `json:"equal,omitempty"`
	Prefix     string            `json:"prefix,omitempty"`
	Words      string            `json:"words,omitempty"`
	Descending bool              `json:"descending,omitempty"`
	Limit      int               `json:"limit,omitempty"`
	Cursor     []byte            `json:"cursor,omitempty"`
}

// Page is the answer of "db.query".
type Page struct {
	Records []Record `json:"records"`
	Next    []byte   `json:"next,omitempty"`
}

// PutRequest writes records, at most 1,000, in one transaction.
type PutRequest struct {
	Target
	Puts []RecordPut `json:"puts"`
}

// A RecordPut is one record to write. With Key, the record is the one that these
// fields' values name, so that writing the same row again updates it; with
// neither ID nor Key a new one is made.
type RecordPut struct {
	ID     string                     `json:"id,omitempty"`
	Key    []string                   `json:"key,omitempty"` // names of fields
	Delete bool                       `json:"delete,omitempty"`
	Fields map[string]json.RawMessage `json:"fields,omitempty"`
}

// PutAnswer says what became of a PutRequest.
type PutAnswer struct {
	IDs     []string `json:"ids"`
	Changed int      `json:"changed"` // records that were not so already
}

// ImportRequest writes rows of text, at most 1,000, in one transaction: the bulk
// form of PutRequest.
type ImportRequest struct {
	Target
	Columns []string   `json:"columns"` // fields' names
	Key     []string   `json:"key,omitempty"`
	Rows    [][]string `json:"rows"`
	Lines   []int      `json:"lines,omitempty"` // where each row was in its file, for messages
}

// OpenRequest asks for an address of the dashboard.
type OpenRequest struct {
	App string `json:"app,omitempty"` // the app that it opens; empty: none
}

// AppRequest names an app.
type AppRequest struct {
	App string `json:"app"`
}

// InstallRequest installs a bundle.
type InstallRequest struct {
	File   string `json:"file,omitempty"` // path of a .peersapp on this machine
	Accept bool   `json:"accept"`         // grant what it asks for
}

// SessionRequest trades a one-time code for the token.
type SessionRequest struct {
	Code string `json:"code"`
}

// SessionAnswer carries the token of the dashboard.
type SessionAnswer struct {
	Token string `json:"token"`
}

// AppAsks is what an app that waits for approval wants, in the host's words.
type AppAsks struct {
	Name      string   `json:"name"`
	Version   string   `json:"version"`
	Publisher string   `json:"publisher"`
	Insecure  bool     `json:"insecure"` // signed with the open development key
	Wants     []AppAsk `json:"wants"`
}

// An AppAsk is one capability: what it lets the app do, and the app's own reason.
type AppAsk struct {
	Capability string `json:"capability"`
	Words      string `json:"words"`
	Reason     string `json:"reason"`
	Optional   bool   `json:"optional,omitempty"`
}
