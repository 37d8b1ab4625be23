package daemon

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"math"
	"strconv"
	"time"

	"github.com/peers-run/peers-runtime/internal/fault"
	"github.com/peers-run/peers-runtime/sync/record"
	"github.com/peers-run/peers-runtime/sync/schema"
)

// Values in JSON: null, bool, number and text are JSON's own; the other kinds
// are objects with one key, so that no text is ever taken for a time.

type wrapped struct {
	Time     *time.Time        `json:"time,omitempty"`
	Bytes    *string           `json:"bytes,omitempty"`
	Ref      *string           `json:"ref,omitempty"`
	Compound []json.RawMessage `json:"compound,omitempty"`
}

func jsonOf(v record.Value) json.RawMessage {
	var out any
	switch v.Kind() {
	case record.KindNull:
	case record.KindBool:
		out = v.Bool()
	case record.KindInt:
		out = v.Int()
	case record.KindFloat:
		out = v.Float()
	case record.KindText:
		out = string(v.Text())
	case record.KindTime:
		t := time.UnixMilli(v.Millis()).UTC()
		out = wrapped{Time: &t}
	case record.KindBytes:
		s := base64.StdEncoding.EncodeToString(v.Bytes())
		out = wrapped{Bytes: &s}
	case record.KindRef:
		s := v.Ref().String()
		out = wrapped{Ref: &s}
	case record.KindCompound:
		parts := make([]json.RawMessage, 0, len(v.Parts()))
		for _, p := range v.Parts() {
			parts = append(parts, jsonOf(p))
		}
		out = wrapped{Compound: parts}
	}
	b, err := json.Marshal(out)
	if err != nil {
		return json.RawMessage("null") // a time beyond year 9999
	}
	return b
}

// valueOf reads a JSON value for a field. A whole number for a float field is a
// float, so that a page's 1 and 1.0 are the same.
func valueOf(raw json.RawMessage, f schema.Field) (record.Value, error) {
	v, err := anyValue(raw)
	if err == nil && f.Kind == record.KindFloat && v.Kind() == record.KindInt {
		v = record.Float(float64(v.Int()))
	}
	if err == nil && !f.Accepts(v) {
		err = fault.New(fault.Invalid, "read the value", "", "field %q takes %s, not %s", f.Name, f.Kind, v.Kind())
	}
	return v, err
}

func anyValue(raw json.RawMessage) (record.Value, error) {
	bad := func(why string) (record.Value, error) {
		return nil, fault.New(fault.Invalid, "read the value", `use null, true, 1, "text", {"time": …}, {"bytes": …}, {"ref": …} or {"compound": […]}`, "%s %s", fault.Quote(string(raw)), why)
	}
	d := json.NewDecoder(bytes.NewReader(raw))
	d.UseNumber()
	var v any
	if err := d.Decode(&v); err != nil {
		return bad("is not JSON")
	}
	switch v := v.(type) {
	case nil:
		return record.Null(), nil
	case bool:
		return record.Bool(v), nil
	case string:
		return record.Text(v), nil
	case json.Number:
		if n, err := strconv.ParseInt(v.String(), 10, 64); err == nil {
			return record.Int(n), nil
		}
		f, err := v.Float64()
		if err != nil || math.IsInf(f, 0) {
			return bad("is out of range")
		}
		return record.Float(f), nil
	case map[string]any:
		return wrappedValue(raw, bad)
	}
	return bad("is no value")
}

func wrappedValue(raw json.RawMessage, bad func(string) (record.Value, error)) (record.Value, error) {
	var w wrapped
	d := json.NewDecoder(bytes.NewReader(raw))
	d.DisallowUnknownFields()
	if err := d.Decode(&w); err != nil {
		return bad("is no value")
	}
	switch {
	case w.Time != nil:
		return record.Time(*w.Time), nil
	case w.Bytes != nil:
		b, err := base64.StdEncoding.DecodeString(*w.Bytes)
		if err != nil {
			return bad("is not base64")
		}
		return record.Bytes(b), nil
	case w.Ref != nil:
		id, err := record.ParseID(*w.Ref)
		if err != nil {
			return nil, err
		}
		return record.Ref(id), nil
	case w.Compound != nil:
		if len(w.Compound) > record.MaxCompound {
			return bad("has too many parts")
		}
		var parts []record.Value
		for _, p := range w.Compound {
			v, err := anyValue(p)
			if err != nil {
				return nil, err
			}
			if v.Kind() == record.KindCompound {
				return bad("is nested")
			}
			parts = append(parts, v)
		}
		return record.Compound(parts...), nil
	}
	return bad("is no value")
}

// textValue reads a cell of a table (CSV) for a field: empty is null, except in
// text fields.
func textValue(s string, f schema.Field) (record.Value, error) {
	bad := func() (record.Value, error) {
		return nil, fault.New(fault.Invalid, "read the value", "", "%s is not %s, which field %q takes", fault.Quote(s), f.Kind, f.Name)
	}
	if f.Kind == record.KindText {
		return record.Text(s), nil
	}
	if s == "" {
		return record.Null(), nil
	}
	switch f.Kind {
	case record.KindInt:
		n, err := strconv.ParseInt(s, 10, 64)
		if err != nil {
			return bad()
		}
		return record.Int(n), nil
	case record.KindFloat:
		x, err := strconv.ParseFloat(s, 64)
		if err != nil || math.IsInf(x, 0) || math.IsNaN(x) {
			return bad()
		}
		return record.Float(x), nil
	case record.KindBool:
		b, err := strconv.ParseBool(s)
		if err != nil {
			return bad()
		}
		return record.Bool(b), nil
	case record.KindTime:
		t, err := time.Parse(time.RFC3339, s)
		if err != nil {
			return bad()
		}
		return record.Time(t), nil
	case record.KindBytes:
		b, err := base64.StdEncoding.DecodeString(s)
		if err != nil {
			return bad()
		}
		return record.Bytes(b), nil
	case record.KindRef:
		id, err := record.ParseID(s)
		if err != nil {
			return bad()
		}
		return record.Ref(id), nil
	}
	return bad()
}
