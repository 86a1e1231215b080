// Package npm installs servers for Node by which the conformance programs check patrol:
// by the lock file that a program embeds, into the user's cache folder.
//
// It must not know what the servers are.
package npm

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
)

// oldestNode is the oldest version of Node on which the servers have been tried.
const oldestNode = 20

// Install unpacks the folder of files and installs the packages of its lock file, once
// for each content, and returns where.
func Install(ctx context.Context, out io.Writer, files fs.FS, folder string) (string, error) {
	if err := node(ctx); err != nil {
		return "", err
	}
	npm, err := exec.LookPath("npm")
	if err != nil {
		return "", errors.New("npm is missing: it comes with Node, see https://nodejs.org")
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		cache = os.TempDir()
	}
	sum := sha256.New()
	entries, err := fs.Glob(files, folder+"/*")
	if err != nil {
		return "", err
	}
	content := map[string][]byte{}
	for _, name := range entries {
		b, err := fs.ReadFile(files, name)
		if err != nil {
			return "", err
		}
		content[filepath.Base(name)] = b
		sum.Write(b)
	}
	dir := filepath.Join(cache, "patrol", folder+"-"+hex.EncodeToString(sum.Sum(nil))[:16])
	if _, err := os.Stat(dir); err == nil {
		return dir, nil
	}
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return "", fmt.Errorf("making the cache folder: %w", err)
	}
	scratch, err := os.MkdirTemp(filepath.Dir(dir), "installing-")
	if err != nil {
		return "", fmt.Errorf("making the cache folder: %w", err)
	}
	defer os.RemoveAll(scratch)
	for name, b := range content {
		if err := os.WriteFile(filepath.Join(scratch, name), b, 0o600); err != nil {
			return "", fmt.Errorf("unpacking %s: %w", folder, err)
		}
	}
	fmt.Fprintln(out, "installing", folder)
	cmd := exec.CommandContext(ctx, npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--omit=dev")
	cmd.Dir = scratch
	if said, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("npm ci: %w\n%s", err, said)
	}
	if err := os.Rename(scratch, dir); err != nil {
		if _, there := os.Stat(dir); there != nil { // another run was first
			return "", fmt.Errorf("installing %s: %w", folder, err)
		}
	}
	return dir, nil
}

// node sees that there is a Node that is new enough.
func node(ctx context.Context) error {
	said, err := exec.CommandContext(ctx, "node", "--version").Output()
	if err != nil {
		return fmt.Errorf("node is missing: install Node %d or newer, see https://nodejs.org (%w)", oldestNode, err)
	}
	version := strings.TrimSpace(string(said))
	major, _, _ := strings.Cut(strings.TrimPrefix(version, "v"), ".")
	if n, err := strconv.Atoi(major); err != nil || n < oldestNode {
		return fmt.Errorf("node %s is too old: install Node %d or newer, see https://nodejs.org", version, oldestNode)
	}
	return nil
}

// CheckLock holds a folder's lock file to what it must be: it pins one version of a
// package, and contents, not places, since whoever installs has a registry of his own.
func CheckLock(files fs.FS, folder, name, version string) error {
	raw, err := fs.ReadFile(files, folder+"/package-lock.json")
	if err != nil {
		return err
	}
	var lock struct {
		Packages map[string]struct {
			Version, Resolved, Integrity string
		} `json:"packages"`
	}
	if err := json.Unmarshal(raw, &lock); err != nil {
		return err
	}
	var errs []error
	if got := lock.Packages["node_modules/"+name].Version; got != version {
		errs = append(errs, fmt.Errorf("%s has version %q, want %s", name, got, version))
	}
	for name, p := range lock.Packages {
		if name != "" && (p.Resolved != "" || !strings.HasPrefix(p.Integrity, "sha512-")) {
			errs = append(errs, fmt.Errorf("%s: resolved %q, integrity %q", name, p.Resolved, p.Integrity))
		}
	}
	return errors.Join(errs...)
}
