package config_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/peers-run/peers-runtime/internal/fault"
	"github.com/peers-run/peers-runtime/internal/fault/faulttest"
	"github.com/peers-run/peers-runtime/runtime/config"
)

func load(t *testing.T, file string, env, flags map[string]string) (config.Config, map[string]config.Origin, error) {
	t.Helper()
	home := t.TempDir()
	if file != "" {
		if err := os.WriteFile(filepath.Join(home, config.FileName), []byte(file), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return config.Load(home,
		func(k string) (string, bool) { v, ok := env[k]; return v, ok },
		func(s config.Setting) (string, bool) { v, ok := flags[s.Flag()]; return v, ok })
}

func TestPrecedence(t *testing.T) {
	file := "port = 1\napi_port = 2\napp_port = 3\ndiscover = false\n"
	c, from, err := load(t, file, map[string]string{"PEERS_API_PORT": "20", "PEERS_APP_PORT": "30"}, map[string]string{"app-port": "300"})
	if err != nil {
		t.Fatal(err)
	}
	if c.Port != 1 || c.APIPort != 20 || c.AppPort != 300 || c.Discover || c.LogLevel != "info" {
		t.Errorf("%+v", c)
	}
	if from["port"] != config.FromFile || from["api_port"] != config.FromEnv || from["app_port"] != config.FromFlag || from["log_level"] != config.FromDefault {
		t.Errorf("%v", from)
	}
}

func TestBadInput(t *testing.T) {
	for name, c := range map[string]struct {
		file string
		env  map[string]string
		want []string
	}{
		"all at once":   {"prot = 1\nport = 70000\nlog_level = 'loud'\n", nil, []string{`"prot" is not a key`, `port = "70000" (from the file): allowed is 0 to 65535`, `log_level = "loud"`}},
		"no TOML":       {"port = = 1", nil, []string{"config.toml"}},
		"duplicate key": {"port = 1\nport = 2", nil, []string{"config.toml"}},
		"truncated":     {"port = ", nil, []string{"config.toml"}},
		"binary":        {"\x00\x01\xff", nil, []string{"config.toml"}},
		"nested deeply": {"bind = " + strings.Repeat("[", 10_000), nil, []string{"config.toml"}},
		"escape":        {"\"\\u001b[2J\" = 1", nil, []string{`"\x1b[2J" is not a key`}},
		"table":         {"[port]\nx = 1", nil, []string{"port is neither"}},
		"environment":   {"", map[string]string{"PEERS_DISCOVER": "yes"}, []string{`discover = "yes" (from the environment)`}},
		"one port":      {"api_port = 5\napp_port = 5", nil, []string{"both 5"}},
		"oversized":     {"#" + strings.Repeat("x", 70_000), nil, []string{"70001 bytes"}},
		"bind":          {"bind = '127.0.0.1,10.0.0.1'", nil, []string{"at most one IPv4"}},
	} {
		t.Run(name, func(t *testing.T) {
			_, _, err := load(t, c.file, c.env, nil)
			for _, w := range c.want {
				faulttest.Want(t, err, fault.Invalid, w, `"peers-runtime config show" lists every key`)
			}
		})
	}
}
