package e2e_test

import (
	"archive/zip"
	"bytes"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
)

// What the sandbox runs is what is deployed.
func TestTheZipHoldsByteForByteWhatRunsHere(t *testing.T) {
	app := packagedApp(t)
	archive, err := zip.OpenReader(app + ".zip")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = archive.Close() }()
	zipped := map[string]*zip.File{}
	for _, f := range archive.File {
		if !f.FileInfo().IsDir() {
			zipped[f.Name] = f
		}
	}
	err = filepath.WalkDir(app, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		name, err := filepath.Rel(app, path)
		if err != nil {
			return err
		}
		f := zipped[filepath.ToSlash(name)]
		if f == nil {
			t.Errorf("%s runs here and is not in the zip", name)
			return nil
		}
		delete(zipped, filepath.ToSlash(name))
		here, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		r, err := f.Open()
		if err != nil {
			return err
		}
		defer func() { _ = r.Close() }()
		there, err := io.ReadAll(r)
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		if !bytes.Equal(here, there) || info.Mode().Perm() != f.Mode().Perm() {
			t.Errorf("%s differs: %d bytes of mode %s here, %d of %s in the zip", name, len(here), info.Mode(),
				len(there), f.Mode())
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for name := range zipped {
		t.Errorf("%s is in the zip and does not run here", name)
	}
}
