package arch

import (
	"bytes"
	"regexp"
	"slices"
	"strings"
)

// registries is the hosts that packages are fetched from. The project names
// packages and uses their ordinary clients: a host in a script or a lock file
// ties it to one mirror. They are written in parts, so that this file passes
// its own rule.
func registries() []string {
	dot := func(parts ...string) string { return strings.Join(parts, ".") }
	return []string{
		dot("proxy", "golang", "org"),
		dot("sum", "golang", "org"),
		dot("registry", "npmjs", "org"),
		dot("registry", "yarnpkg", "com"),
		dot("deb", "debian", "org"),
		dot("ftp", "debian", "org"),
		dot("security", "debian", "org"),
		dot("pypi", "org"),
		dot("files", "pythonhosted", "org"),
		dot("static", "crates", "io"),
	}
}

// machinePath matches an absolute path of somebody's machine. What stands
// before it must not be part of a longer path, so net/work/x does not match.
var machinePath = regexp.MustCompile(`(?m)(?:^|[^\w./~-])/(?:work|root)/`)

// words checks every text file, whatever its kind, for what must not be
// published: hosts of package registries and paths of one machine. Most files
// name neither, so a whole file is searched before its lines are.
func words(s *source) []Finding {
	var found []Finding
	for p, text := range s.texts {
		low := bytes.ToLower(text)
		host := slices.ContainsFunc(registries(), func(h string) bool { return bytes.Contains(low, []byte(h)) })
		if !host && !machinePath.Match(text) {
			continue
		}
		for i, line := range bytes.Split(text, []byte("\n")) {
			low := bytes.ToLower(line)
			if slices.ContainsFunc(registries(), func(h string) bool { return bytes.Contains(low, []byte(h)) }) {
				found = append(found, Finding{Rule: RuleWords, Path: p, Line: i + 1,
					Text: "names the host of a package registry: name the package and let its client find it"})
			}
			if machinePath.Match(line) {
				found = append(found, Finding{Rule: RuleWords, Path: p, Line: i + 1,
					Text: "names an absolute path of one machine: make it relative to the checkout, or a setting"})
			}
		}
	}
	return found
}
