package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"github.com/u-root/gobusybox/src/pkg/golang"
	"github.com/u-root/mkuimage/cpio"
	"github.com/u-root/mkuimage/uimage"
	"github.com/u-root/uio/llog"

	"github.com/postern-router/postern/board"
	"github.com/postern-router/postern/internal/cache"
)

// debugCommands are the tools of u-root that DEBUG=1 adds, as one program in /bbin.
var debugCommands = []string{
	"github.com/u-root/u-root/cmds/core/gosh",
	"github.com/u-root/u-root/cmds/core/ip",
	"github.com/u-root/u-root/cmds/core/ping",
	"github.com/u-root/u-root/cmds/core/dmesg",
	"github.com/u-root/u-root/cmds/core/ps",
	"github.com/u-root/u-root/cmds/core/ls",
	"github.com/u-root/u-root/cmds/core/cat",
	"github.com/u-root/u-root/cmds/core/kill",
}

// debugToolsRecipe is for debugTools what kernelRecipe is for the kernel.
const debugToolsRecipe = "1"

// debugTools returns what debugCommands are in an image for the board's CPU. They take longer to build than all
// the rest of an image, as Go keeps nothing of what u-root's builder has it compile, and hardly ever change.
func debugTools(c cache.Cache, b board.Board) ([]cpio.Record, error) {
	work, err := os.MkdirTemp("", "postern-tools-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(work)
	env, err := goEnv(b, work)
	if err != nil {
		return nil, err
	}
	patched, err := overlayText(env)
	if err != nil {
		return nil, err
	}
	project, err := projectFolder()
	if err != nil {
		return nil, err
	}
	modules, err := os.ReadFile(filepath.Join(project, "go.sum"))
	if err != nil {
		return nil, err
	}
	inputs := append([]string{debugToolsRecipe, runtime.Version(), string(modules), patched}, append(b.GoEnv(), debugCommands...)...)
	dir, err := c.Get("tools", b.CPU.GOARCH, inputs, func(result, work string) error {
		say("building the debugging tools for %s", b.CPU.GOARCH)
		return buildDebugTools(b, env, filepath.Join(result, "tools.cpio"), work)
	})
	if err != nil {
		return nil, err
	}
	archive, err := os.ReadFile(filepath.Join(dir, "tools.cpio"))
	if err != nil {
		return nil, err
	}
	return cpio.ReadAllRecords(cpio.Newc.Reader(bytes.NewReader(archive)))
}

// overlayText returns the text of all files that the overlay in a Go environment puts in place of others.
func overlayText(env []string) (string, error) {
	at := slices.IndexFunc(env, func(v string) bool { return strings.HasPrefix(v, "GOFLAGS=") })
	_, path, ok := strings.Cut(env[at], "-overlay=")
	if !ok {
		return "", fmt.Errorf("no overlay in %q", env[at])
	}
	list, err := os.ReadFile(path)
	if err != nil {
		return "", err
	}
	var overlay struct{ Replace map[string]string }
	if err := json.Unmarshal(list, &overlay); err != nil {
		return "", err
	}
	var texts []string
	for _, path := range overlay.Replace {
		text, err := os.ReadFile(path)
		if err != nil {
			return "", err
		}
		texts = append(texts, string(text))
	}
	slices.Sort(texts)
	return cache.Key(texts...), nil
}

// buildDebugTools compiles debugCommands into an archive.
func buildDebugTools(b board.Board, env []string, archive, work string) error {
	// GOMIPS and GOARM reach u-root's builder by the environment alone.
	for _, v := range env {
		name, value, _ := strings.Cut(v, "=")
		if name == "GOFLAGS" {
			// As small as possible: the initramfs is in memory, on the smallest board too.
			value += " " + withoutInlining[0]
		}
		before, set := os.LookupEnv(name)
		if err := os.Setenv(name, value); err != nil {
			return err
		}
		defer func() {
			if os.Unsetenv(name); set {
				os.Setenv(name, before)
			}
		}()
	}
	return uimage.Create(llog.Default(),
		uimage.WithTempDir(work),
		uimage.WithCPIOOutput(archive),
		uimage.WithSkipLDD(),
		// gosh without its line editor, which waits for answers that a serial line may not give.
		uimage.WithEnv(golang.DisableCGO(), golang.WithGOARCH(b.CPU.GOARCH), golang.WithBuildTag("goshsmall")),
		uimage.WithBusyboxCommands(debugCommands...))
}
