// Package page holds the SDK for pages of apps, as files: peers.js, the module an
// app imports, and what it needs. Packing an app puts them into its ui/peers
// folder, so a bundle always carries the SDK it was made with.
package page

import "embed"

// Files are the modules, all in one folder.
//
//go:embed *.js
var Files embed.FS
