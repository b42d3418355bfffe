package store

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// A recorder is what a Keeper saves to.
type recorder struct {
	mu      sync.Mutex
	start   time.Time
	err     error
	takes   time.Duration
	writes  []string // "1s text", the time when each began
	reports []string
}

// keeper runs a test in a bubble with a Keeper; time passes only in sleeps.
func keeper(t *testing.T, test func(t *testing.T, k *Keeper, r *recorder)) {
	synctest.Test(t, func(t *testing.T) {
		r := &recorder{start: time.Now()}
		k := NewKeeper(r.save, r.report)
		defer func() { // also when the test failed: no goroutine may be left
			r.fail(nil)
			assert.NoError(t, k.Close(context.Background()))
		}()
		test(t, k, r)
	})
}

func (r *recorder) save(text []byte) error {
	r.mu.Lock()
	r.writes = append(r.writes, fmt.Sprintf("%v %s", time.Since(r.start), text))
	r.mu.Unlock()
	time.Sleep(r.takes)
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.err
}

func (r *recorder) report(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.reports = append(r.reports, fmt.Sprintf("%v %v", time.Since(r.start), err))
}

func (r *recorder) fail(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.err = err
}

// written waits until nothing moves and returns the writes so far.
func (r *recorder) written() []string {
	synctest.Wait()
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.writes)
}

// reported is the same for the reports.
func (r *recorder) reported() []string {
	synctest.Wait()
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.reports)
}

func TestKeeperWaitsForQuiet(t *testing.T) {
	keeper(t, func(t *testing.T, k *Keeper, r *recorder) {
		for i := range 500 { // a pasted script
			k.Put(fmt.Append(nil, i))
		}
		time.Sleep(quiet - 1)
		assert.Empty(t, r.written())
		time.Sleep(time.Nanosecond)
		assert.Equal(t, []string{"1s 499"}, r.written())
		time.Sleep(time.Hour)
		assert.Len(t, r.written(), 1)
		assert.Empty(t, r.reported())
	})
}

func TestKeeperWaitsAtMost(t *testing.T) {
	keeper(t, func(t *testing.T, k *Keeper, r *recorder) {
		for i := range 20 { // the last at 11.4s
			k.Put(fmt.Append(nil, i))
			time.Sleep(600 * time.Millisecond)
		}
		assert.Equal(t, []string{"5s 8", "10.4s 17"}, r.written())
		time.Sleep(time.Hour)
		assert.Equal(t, []string{"5s 8", "10.4s 17", "12.4s 19"}, r.written())
	})
}

// What flash wears out is the long run.
func TestKeeperBoundsWrites(t *testing.T) {
	keeper(t, func(t *testing.T, k *Keeper, r *recorder) {
		day := func() int {
			before := len(r.written())
			for i := range 24 * 60 * 60 / 2 {
				k.Put(fmt.Append(nil, i))
				time.Sleep(2 * time.Second) // quiet each time
			}
			return len(r.written()) - before
		}
		assert.InDelta(t, burst+24*60/5, day(), 1)
		assert.InDelta(t, 24*60/5, day(), 1)

		// The burst comes back with rest.
		time.Sleep(burst * refill)
		before := len(r.written())
		for i := range burst {
			k.Put(fmt.Append(nil, -i))
			time.Sleep(2 * time.Second)
		}
		assert.Len(t, r.written(), before+burst)

		// Without a write to give, the newest text is still written in the end.
		k.Put([]byte("last"))
		time.Sleep(refill)
		writes := r.written()
		assert.Contains(t, writes[len(writes)-1], " last")
	})
}

func TestKeeperPutDuringSave(t *testing.T) {
	keeper(t, func(t *testing.T, k *Keeper, r *recorder) {
		r.takes = 10 * time.Second // a chip that is slow to erase
		k.Put([]byte("a"))
		time.Sleep(2 * time.Second)
		before := time.Now()
		k.Put([]byte("b"))
		k.Put([]byte("c"))
		assert.Equal(t, before, time.Now(), "Put does not wait")
		time.Sleep(time.Hour)
		assert.Equal(t, []string{"1s a", "11s c"}, r.written())
	})
}

func TestKeeperCopies(t *testing.T) {
	keeper(t, func(t *testing.T, k *Keeper, r *recorder) {
		text := []byte("a")
		k.Put(text)
		text[0] = 'b'
		time.Sleep(quiet)
		assert.Equal(t, []string{"1s a"}, r.written())
	})
}

func TestKeeperPutLater(t *testing.T) {
	keeper(t, func(t *testing.T, k *Keeper, r *recorder) {
		var made atomic.Int32
		text := func(text string) func() []byte {
			return func() []byte {
				made.Add(1)
				if text == "" {
					return nil
				}
				return []byte(text)
			}
		}
		k.PutLater(text("a"))
		k.PutLater(text("b"))
		assert.Empty(t, r.written())
		assert.Zero(t, made.Load())
		time.Sleep(quiet)
		assert.Equal(t, []string{"1s b"}, r.written())
		assert.EqualValues(t, 1, made.Load())

		k.PutLater(text("")) // there is nothing to write
		time.Sleep(time.Hour)
		assert.Len(t, r.written(), 1)
		assert.EqualValues(t, 2, made.Load())

		r.fail(errors.New("worn"))
		k.PutLater(text("c"))
		time.Sleep(quiet)
		assert.Len(t, r.written(), 2)
		k.PutLater(text("")) // does not make the other written
		time.Sleep(quiet)
		r.written()
		r.fail(nil)
		time.Sleep(retryFirst)
		assert.Equal(t, []string{"1h0m2s c", "1h0m7s c"}, r.written()[1:])
		assert.EqualValues(t, 4, made.Load())
		time.Sleep(time.Hour)
		assert.Len(t, r.written(), 3)
	})
}

func TestKeeperRetries(t *testing.T) {
	keeper(t, func(t *testing.T, k *Keeper, r *recorder) {
		r.fail(syscall.EIO)
		k.Put([]byte("a"))
		time.Sleep(30 * time.Second)
		assert.Equal(t, []string{"1s a", "6s a", "16s a"}, r.written())
		k.Put([]byte("b"))
		time.Sleep(10 * time.Second)
		assert.Equal(t, []string{"1s a", "6s a", "16s a", "36s b"}, r.written(), "a change does not shorten the wait")
		assert.Equal(t, []string{"1s input/output error", "6s input/output error", "16s input/output error", "36s input/output error"}, r.reported())

		time.Sleep(24 * time.Hour)
		before := len(r.written())
		time.Sleep(24 * time.Hour)
		assert.InDelta(t, 24, len(r.written())-before, 1, "once an hour")

		r.fail(nil)
		time.Sleep(retryMax)
		reports := r.reported()
		assert.Contains(t, reports[len(reports)-1], "<nil>", "the success is told")
		n := len(r.written())
		time.Sleep(24 * time.Hour)
		assert.Len(t, r.written(), n)

		k.Put([]byte("c"))
		time.Sleep(quiet)
		assert.Len(t, r.written(), n+1, "as before")
	})
}

func TestKeeperTooLong(t *testing.T) {
	keeper(t, func(t *testing.T, k *Keeper, r *recorder) {
		r.fail(fmt.Errorf("save: %w", ErrTooLong))
		k.Put([]byte("long"))
		time.Sleep(24 * time.Hour)
		assert.Equal(t, []string{"1s long"}, r.written(), "that it is tried again does not make it shorter")
		r.fail(nil)
		k.Put([]byte("short"))
		time.Sleep(quiet)
		assert.Equal(t, []string{"1s long", "24h0m1s short"}, r.written())
		assert.Equal(t, []string{"1s save: text too long", "24h0m1s <nil>"}, r.reported())
	})
}

func TestKeeperClose(t *testing.T) {
	t.Run("saves what is left", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			r := &recorder{start: time.Now(), takes: time.Second}
			k := NewKeeper(r.save, r.report)
			k.Put([]byte("a"))
			require.NoError(t, k.Close(t.Context()))
			k.Put([]byte("b"))
			require.ErrorIs(t, k.Close(t.Context()), os.ErrClosed)
			time.Sleep(time.Hour)
			assert.Equal(t, []string{"0s a"}, r.written())
		})
	})
	t.Run("has nothing to do", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			r := &recorder{start: time.Now()}
			k := NewKeeper(r.save, r.report)
			k.Put([]byte("a"))
			time.Sleep(2 * quiet)
			require.NoError(t, k.Close(t.Context()))
			assert.Equal(t, []string{"1s a"}, r.written())
		})
	})
	t.Run("waits for the save under way and saves what came meanwhile", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			r := &recorder{start: time.Now(), takes: time.Second}
			k := NewKeeper(r.save, r.report)
			k.Put([]byte("a"))
			time.Sleep(quiet + quiet/2)
			k.Put([]byte("b"))
			require.NoError(t, k.Close(t.Context()))
			assert.Equal(t, []string{"1s a", "2s b"}, r.written())
			assert.Equal(t, 3*time.Second, time.Since(r.start))
		})
	})
	t.Run("waits for no write of the burst", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			r := &recorder{start: time.Now()}
			k := NewKeeper(r.save, r.report)
			for i := range burst + 1 {
				k.Put(fmt.Append(nil, i))
				time.Sleep(2 * quiet)
			}
			assert.Len(t, r.written(), burst)
			closed := time.Now()
			require.NoError(t, k.Close(t.Context()))
			assert.Len(t, r.written(), burst+1)
			assert.Zero(t, time.Since(closed))
		})
	})
	t.Run("waits for no further try", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			r := &recorder{start: time.Now(), err: syscall.EIO}
			k := NewKeeper(r.save, r.report)
			k.Put([]byte("a"))
			time.Sleep(quiet)
			assert.Equal(t, []string{"1s a"}, r.written())
			r.fail(nil)
			require.NoError(t, k.Close(t.Context()))
			assert.Equal(t, []string{"1s a", "1s a"}, r.written())
			assert.Equal(t, []string{"1s input/output error", "1s <nil>"}, r.reported())
		})
	})
	t.Run("does not try again what is too long", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			r := &recorder{start: time.Now(), err: fmt.Errorf("save: %w", ErrTooLong)}
			k := NewKeeper(r.save, r.report)
			k.Put([]byte("long"))
			time.Sleep(2 * quiet)
			require.ErrorIs(t, k.Close(t.Context()), ErrTooLong)
			assert.Equal(t, []string{"1s long"}, r.written())
		})
	})
	t.Run("says that it could not", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			r := &recorder{start: time.Now(), err: syscall.EIO}
			k := NewKeeper(r.save, r.report)
			k.Put([]byte("a"))
			require.ErrorIs(t, k.Close(t.Context()), syscall.EIO)
			time.Sleep(time.Hour)
			assert.Equal(t, []string{"0s a"}, r.written(), "and gives up")
		})
	})
	t.Run("does not wait for ever", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			r := &recorder{start: time.Now(), takes: time.Hour}
			k := NewKeeper(r.save, r.report)
			k.Put([]byte("a"))
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
			defer cancel()
			require.ErrorIs(t, k.Close(ctx), context.DeadlineExceeded)
			assert.Equal(t, 5*time.Second, time.Since(r.start))
			time.Sleep(time.Hour) // no goroutine may be left at the end of a bubble
		})
	})
}

// A router without flash: the error is told, nothing waits.
func TestKeeperWithoutFlash(t *testing.T) {
	keeper(t, func(t *testing.T, k *Keeper, r *recorder) {
		_, err := Open("/dev/no-mtd")
		require.ErrorIs(t, err, fs.ErrNotExist)
		r.fail(err)
		k.Put([]byte("a"))
		time.Sleep(quiet)
		assert.Equal(t, []string{"1s open store /dev/no-mtd: stat /dev/no-mtd: no such file or directory"}, r.reported())
	})
}

// With a real store, and changes from many sides.
func TestKeeperAndStore(t *testing.T) {
	path := filepath.Join(t.TempDir(), "configuration")
	st := boot(t, path)
	k := NewKeeper(st.Save, func(err error) { t.Error(errors.Join(err, errors.New("reported"))) })
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for j := range 20 {
				k.Put(text(20*i + j))
			}
		})
	}
	wg.Wait()
	k.Put([]byte("last"))
	require.NoError(t, k.Close(t.Context()))
	assert.Equal(t, "last", string(load(t, st)))
}
