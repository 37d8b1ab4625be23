// Package config is how a runtime is told what to do: config.toml in its home,
// environment variables and flags. A flag beats the environment, that beats the
// file, that beats the default; unknown keys and bad values are refused, all at
// once, with key, value and range. Nothing is ever clipped.
//
// Every setting is one row of the table in settings(): its key in the file, its
// variable (PEERS_ and the key in capitals) and its flag (the key with hyphens)
// follow from it.
package config

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/BurntSushi/toml"

	"github.com/peers-run/peers-runtime/internal/fault"
)

// A Config holds every setting.
type Config struct {
	Port     int    // UDP port for other devices; 0: the last one, or any
	APIPort  int    // TCP port of the local API and dashboard, on loopback
	AppPort  int    // TCP port that serves apps' files, on loopback
	Discover bool   // announce and look for devices on the LAN
	Bind     string // addresses to listen on for other devices, comma-separated; empty: all
	LogLevel string // debug, info, warn or error
}

// Default returns the settings of a home without a config file.
func Default() Config {
	return Config{APIPort: 7717, AppPort: 7718, Discover: true, LogLevel: "info"}
}

// An Origin says where a value came from.
type Origin string

// The origins, weakest first.
const (
	FromDefault Origin = "default"
	FromFile    Origin = "file"
	FromEnv     Origin = "environment"
	FromFlag    Origin = "flag"
)

// A Setting is one row: a key, what it means, and how its text is read and
// written.
type Setting struct {
	Key   string // as in config.toml
	Range string // what is allowed, for people
	Help  string
	get   func(*Config) string
	set   func(*Config, string) error
}

// Env is the setting's environment variable.
func (s Setting) Env() string { return "PEERS_" + strings.ToUpper(s.Key) }

// Flag is the setting's flag, without hyphens before it.
func (s Setting) Flag() string { return strings.ReplaceAll(s.Key, "_", "-") }

// Value is the setting's value in c, as text.
func (s Setting) Value(c Config) string { return s.get(&c) }

var errRange = errors.New("out of range")

func port(key, help string, at func(*Config) *int) Setting {
	return Setting{
		Key: key, Help: help, Range: "0 to 65535; 0 means any free port",
		get: func(c *Config) string { return strconv.Itoa(*at(c)) },
		set: func(c *Config, s string) error {
			n, err := strconv.Atoi(s)
			if err != nil || n < 0 || n > 65535 {
				return errRange
			}
			*at(c) = n
			return nil
		},
	}
}

// Settings lists every setting.
func Settings() []Setting {
	return []Setting{
		port("port", "UDP port for other devices", func(c *Config) *int { return &c.Port }),
		port("api_port", "TCP port of the dashboard and local API, on loopback", func(c *Config) *int { return &c.APIPort }),
		port("app_port", "TCP port that serves apps' files, on loopback", func(c *Config) *int { return &c.AppPort }),
		{
			Key: "discover", Help: "announce this device and look for others on the LAN", Range: "true or false",
			get: func(c *Config) string { return strconv.FormatBool(c.Discover) },
			set: func(c *Config, s string) error {
				if s != "true" && s != "false" {
					return errRange
				}
				c.Discover = s == "true"
				return nil
			},
		},
		{
			Key: "bind", Help: "addresses to listen on for other devices", Range: "at most one IPv4 and one IPv6 address, comma-separated; empty for all",
			get: func(c *Config) string { return c.Bind },
			set: func(c *Config, s string) error {
				if _, err := ParseBind(s); err != nil {
					return errRange
				}
				c.Bind = s
				return nil
			},
		},
		{
			Key: "log_level", Help: "how much is logged", Range: "debug, info, warn or error",
			get: func(c *Config) string { return c.LogLevel },
			set: func(c *Config, s string) error {
				switch s {
				case "debug", "info", "warn", "error":
					c.LogLevel = s
					return nil
				}
				return errRange
			},
		},
	}
}

// FileName is the config file's name in a home.
const FileName = "config.toml"

// maxFile bounds a config file.
const maxFile = 64 << 10

// A Source gives the text of a setting, if it has one.
type Source func(Setting) (value string, ok bool)

// Load joins the file in home, the environment and flags. All faults are
// reported together.
func Load(home string, getenv func(string) (string, bool), flags Source) (Config, map[string]Origin, error) {
	c, origins := Default(), map[string]Origin{}
	file, faults := readFile(filepath.Join(home, FileName))
	sources := []struct {
		from Origin
		get  Source
	}{
		{FromFile, func(s Setting) (string, bool) { v, ok := file[s.Key]; return v, ok }},
		{FromEnv, func(s Setting) (string, bool) { return getenv(s.Env()) }},
		{FromFlag, flags},
	}
	for _, s := range Settings() {
		origins[s.Key] = FromDefault
		for _, src := range sources {
			v, ok := src.get(s)
			if !ok {
				continue
			}
			if err := s.set(&c, v); err != nil {
				faults = append(faults, fmt.Errorf("%s = %s (from the %s): allowed is %s", s.Key, fault.Quote(v), src.from, s.Range))
				continue
			}
			origins[s.Key] = src.from
		}
	}
	if c.APIPort != 0 && c.APIPort == c.AppPort {
		faults = append(faults, fmt.Errorf("api_port and app_port are both %d: apps' files need a port of their own", c.APIPort))
	}
	if len(faults) > 0 {
		return c, origins, &fault.Error{Op: "use the configuration", Code: fault.Invalid, Hint: `"peers-runtime config show" lists every key, "config check" tries it`, Err: errors.Join(faults...)}
	}
	return c, origins, nil
}

// readFile gives the file's values as text, and its faults: what does not parse,
// keys that do not exist, values that are no plain text, number or bool.
func readFile(path string) (values map[string]string, faults []error) {
	values = map[string]string{}
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return values, nil
	}
	if err == nil && info.Size() > maxFile {
		err = fmt.Errorf("%s has %d bytes, at most %d are read", FileName, info.Size(), maxFile)
	}
	var b []byte
	if err == nil {
		b, err = os.ReadFile(path)
	}
	var raw map[string]any
	if err == nil {
		err = toml.Unmarshal(b, &raw)
	}
	if err != nil {
		return values, []error{fmt.Errorf("%s: %w", FileName, err)}
	}
	known := map[string]bool{}
	for _, s := range Settings() {
		known[s.Key] = true
	}
	for key, v := range raw {
		if !known[key] {
			faults = append(faults, fmt.Errorf("%s: %s is not a key", FileName, fault.Quote(key)))
			continue
		}
		switch v := v.(type) {
		case string:
			values[key] = v
		case bool:
			values[key] = strconv.FormatBool(v)
		case int64:
			values[key] = strconv.FormatInt(v, 10)
		default:
			faults = append(faults, fmt.Errorf("%s: %s is neither text nor number nor true or false", FileName, key))
		}
	}
	return values, faults
}
