package main

import (
	"fmt"
	"runtime"
	"time"

	"github.com/postern-router/postern/board"
	"github.com/postern-router/postern/internal/cache"
)

// objectTime is how long one processor takes to compile one file of the kernel: an upper
// bound, since the machines that the project is tested on take 0.6 s.
const objectTime = time.Second

// kernelTime estimates how long this machine takes to build a board's kernel.
func kernelTime(b board.Board) time.Duration {
	return time.Duration(b.Kernel.Objects) * objectTime / time.Duration(runtime.NumCPU())
}

// buildKernelsBy builds the kernels that the boards need and the cache lacks, as long as each
// is done before end, and returns the boards that have a kernel. The others are printed to
// standard output, with the reason.
func buildKernelsBy(c cache.Cache, boards []board.Board, end time.Time) ([]board.Board, error) {
	var ready, missing []board.Board
	for _, b := range boards {
		_, _, inputs, err := kernelInputs(b, "")
		if err != nil {
			return nil, err
		}
		if _, ok := c.Find("kernel", b.Kernel.Name, inputs); ok {
			ready = append(ready, b)
		} else {
			missing = append(missing, b)
		}
	}
	built := map[string]bool{}
	for _, b := range missing {
		if !built[b.Kernel.Name] {
			left, takes := time.Until(end).Round(time.Second), kernelTime(b).Round(time.Second)
			if left < takes {
				fmt.Printf("NOT BUILT: %s: its kernel, %s, is not in the cache and takes about %v, of which %v are left\n",
					b.Name, b.Kernel.Name, takes, max(0, left))
				continue
			}
			if _, err := kernel(c, b, ""); err != nil {
				return nil, err
			}
			built[b.Kernel.Name] = true
		}
		ready = append(ready, b)
	}
	return ready, nil
}
