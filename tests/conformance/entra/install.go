package main

import (
	"context"
	"crypto/sha256"
	"embed"
	"encoding/hex"
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

//go:embed authority
var files embed.FS

// oldestNode is the oldest version of Node on which this has been tried.
const oldestNode = 20

// install puts the authority and its packages into the user's cache folder,
// once for each lock file.
func install(ctx context.Context, out io.Writer) (string, error) {
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
	entries, err := fs.Glob(files, "authority/*")
	if err != nil {
		return "", err
	}
	content := map[string][]byte{}
	for _, name := range entries {
		b, err := files.ReadFile(name)
		if err != nil {
			return "", err
		}
		content[filepath.Base(name)] = b
		sum.Write(b)
	}
	dir := filepath.Join(cache, "patrol", "authority-"+hex.EncodeToString(sum.Sum(nil))[:16])
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
			return "", fmt.Errorf("unpacking the authority: %w", err)
		}
	}
	fmt.Fprintln(out, "installing oidc-provider")
	cmd := exec.CommandContext(ctx, npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--omit=dev")
	cmd.Dir = scratch
	if said, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("npm ci: %w\n%s", err, said)
	}
	if err := os.Rename(scratch, dir); err != nil {
		if _, there := os.Stat(dir); there != nil { // another run was first
			return "", fmt.Errorf("installing the authority: %w", err)
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
