package main

import (
	"archive/zip"
	"io"
	"io/fs"
	"slices"
	"time"
)

// writeZip writes every file of app, sorted by its full name.
func writeZip(w io.Writer, app fs.FS, date time.Time) error {
	var names []string
	err := fs.WalkDir(app, ".", func(name string, entry fs.DirEntry, err error) error {
		if err == nil && !entry.IsDir() {
			names = append(names, name)
		}
		return err
	})
	if err != nil {
		return err
	}
	// WalkDir's order is by path element, which is not the order of the names.
	slices.Sort(names)

	archive := zip.NewWriter(w)
	for _, name := range names {
		data, err := fs.ReadFile(app, name)
		if err != nil {
			return err
		}
		header := &zip.FileHeader{Name: name, Method: zip.Deflate, Modified: date}
		header.SetMode(modeOf(name)) // marks the entry as made on Unix, or its mode would be ignored
		entry, err := archive.CreateHeader(header)
		if err != nil {
			return err
		}
		if _, err := entry.Write(data); err != nil {
			return err
		}
	}
	return archive.Close()
}

// modeOf is the mode of an entry of the app.
func modeOf(name string) fs.FileMode {
	if name == handlerName {
		return 0o755
	}
	return 0o644
}
