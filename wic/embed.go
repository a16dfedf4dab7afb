package wic

import (
	"embed"
	"io/fs"
)

// dist is what `make build` leaves: the page, its script and style, and the licences of
// the npm packages in them. In a fresh clone it holds the placeholder alone, so that
// `go build` works without Node.
//
//go:embed all:dist
var dist embed.FS

const (
	indexName       = "index.html"
	placeholderName = "placeholder.html"
)

// Built reports whether the real page is embedded, and not the placeholder that says
// how to build it.
func Built() bool { return built(dist) }

func built(fsys fs.FS) bool {
	_, err := fs.Stat(fsys, "dist/"+indexName)
	return err == nil
}
