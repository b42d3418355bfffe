package store_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"os"
	"path/filepath"

	"github.com/postern-router/postern/store"
)

// A text is kept in a file here; on a router it is a partition of flash (/dev/mtd2) or of a
// disk. The next start loads the newest text that was saved whole.
func Example() {
	dir, err := os.MkdirTemp("", "store")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "configuration")

	st, err := store.Open(path)
	if err != nil {
		log.Fatal(err)
	}
	_, _, err = st.Load()
	fmt.Println("new:", errors.Is(err, store.ErrEmpty))
	for _, text := range []string{"/system identity set name=old", "/system identity set name=attic"} {
		if err := st.Save([]byte(text)); err != nil {
			log.Fatal(err)
		}
	}
	if err := st.Close(); err != nil {
		log.Fatal(err)
	}

	st, err = store.Open(path)
	if err != nil {
		log.Fatal(err)
	}
	defer st.Close()
	text, info, err := st.Load()
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%s\nfrom slot %d of %d in a %s\n", text, info.Slot, info.Slots, info.Medium)
	// Output:
	// new: true
	// /system identity set name=attic
	// from slot 1 of 2 in a file
}

// A Keeper saves what changes when it has been quiet for a second, and at once when it is
// closed. Nobody who changes something waits for flash.
func ExampleKeeper() {
	keeper := store.NewKeeper(
		func(text []byte) error { fmt.Printf("saved %s\n", text); return nil },
		func(err error) { fmt.Println("the configuration is not kept:", err) },
	)
	keeper.Put([]byte("first"))
	keeper.Put([]byte("second"))
	if err := keeper.Close(context.Background()); err != nil {
		log.Fatal(err)
	}
	// Output: saved second
}
