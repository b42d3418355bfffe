// Package npm has what tests take from npm's registry: node-routeros, which manages a router by its API, and Playwright, which
// drives a browser. package.json names them, package-lock.json has the hash of each archive, and nothing of theirs runs while
// they are installed. `make setup` installs them into the cache (package cache), outside the checkout.
package npm

import (
	_ "embed"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/postern-router/postern/internal/cache"
	"github.com/postern-router/postern/internal/e2e"
)

//go:embed package.json
var names string

//go:embed package-lock.json
var hashes string

// of tells the cache what an installation is made of.
func of() (c cache.Cache, kind, name string, inputs []string, err error) {
	c, err = cache.Open()
	return c, "npm", "tests", []string{names, hashes}, err
}

// Install installs the packages into the cache, by npm, if they are not there.
func Install() error {
	c, kind, name, inputs, err := of()
	if err != nil {
		return err
	}
	_, err = c.Get(kind, name, inputs, func(result, work string) error {
		fmt.Fprintln(os.Stderr, "npm: fetching the packages that the tests take")
		for file, text := range map[string]string{"package.json": names, "package-lock.json": hashes} {
			if err := os.WriteFile(filepath.Join(result, file), []byte(text), 0o644); err != nil {
				return err
			}
		}
		cmd := exec.Command("npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--no-update-notifier", "--cache", work)
		cmd.Dir = result
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("npm ci: %w:\n%s", err, out)
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("npm's packages for the tests: %w", err)
	}
	return nil
}

// Needs marks a test that uses the packages, as e2e.Needs does, and returns the variable of the environment by which node
// finds them.
func Needs(t testing.TB) string {
	t.Helper()
	c, kind, name, inputs, err := of()
	if err != nil {
		t.Fatal(err)
	}
	dir, _ := c.Find(kind, name, inputs)
	modules := filepath.Join(dir, "node_modules")
	e2e.Needs(t, "node", modules)
	return "NODE_PATH=" + modules
}
