package router

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/postern-router/postern/board"
	"github.com/postern-router/postern/console"
	"github.com/postern-router/postern/upgrade"
)

const (
	// slotWord on the kernel's command line is followed by the name of the slot that the boot
	// loader has started.
	slotWord = "postern.slot="
	// imagePartition is the partition of a board with room for one image.
	imagePartition = "image"
)

// places is where images are on the board's flash.
type places struct {
	// inPlace is the partition of a board with room for one image; "" on one with two slots.
	inPlace string
	slots   [2]string
	// states is the partition of the slots' states, on a disk.
	states string
	// current is the slot that runs, 0 or 1.
	current int
}

// findPlaces finds the partitions of images, and which of two the boot loader has
// started.
func findPlaces(sys, dev, commandLine string) (places, error) {
	path, err := findPartition(sys, dev, imagePartition)
	if err == nil {
		return places{inPlace: path}, nil
	}
	p := places{current: -1}
	for i, name := range board.Slots {
		if p.slots[i], err = findPartition(sys, dev, name); err != nil {
			return places{}, err
		}
	}
	// A chip has no such partition.
	p.states, _ = findPartition(sys, dev, board.SlotStates)
	for _, word := range strings.Fields(commandLine) {
		if name, ok := strings.CutPrefix(word, slotWord); ok {
			p.current = slices.Index(upgrade.SlotNames[:], name)
		}
	}
	if p.current < 0 {
		return p, errors.New("the router was not started from flash, but by something else than its boot loader")
	}
	return p, nil
}

// places finds the partitions of images of this machine.
func (r *Router) places() (places, error) {
	return findPlaces(r.root+"/sys", r.root+"/dev", r.commandLine)
}

// look returns the states of the slots.
func (p places) look() (states [2]upgrade.State, err error) {
	slots, err := upgrade.OpenSlots(p.slots, p.states)
	if err != nil {
		return states, err
	}
	for i, s := range slots {
		var e error
		states[i], e = s.State()
		err = errors.Join(err, e)
	}
	return states, errors.Join(err, slots.Close())
}

// confirm marks the running slot as confirmed: the boot loader goes on starting it.
func (p places) confirm() error {
	slots, err := upgrade.OpenSlots(p.slots, p.states)
	if err != nil {
		return err
	}
	return errors.Join(slots[p.current].Confirm(), slots.Close())
}

// upgrades serialises what is done to the router's own software.
type upgrades struct {
	running upgrade.Running
	// busy holds an element while somebody reads or writes the slots.
	busy chan struct{}

	mu sync.Mutex
	// latest is the version that the server of newer versions had when it was asked last, and status what came of that, or how far an
	// upgrade is.
	latest, status string
	// stop ends the fetching of an image, nil if none is fetched.
	stop context.CancelFunc
}

// lookTime is how long a user waits who wants to see the slots: long enough for another
// reader, and not for an upgrade.
const lookTime = time.Second

// enter waits until nobody else uses the slots. It returns an error if that takes too long.
func (u *upgrades) enter(wait time.Duration) error {
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case u.busy <- struct{}{}:
		return nil
	case <-timer.C:
		return errUpgrading
	}
}

// leave lets others use the slots.
func (u *upgrades) leave() { <-u.busy }

// errUpgrading is the error of a second upgrade.
var errUpgrading = errors.New("failure: an upgrade is under way")

// slots returns what /partitions shows.
func (r *Router) slots() ([]console.SlotState, error) {
	if err := r.upgrades.enter(lookTime); err != nil {
		return nil, err
	}
	defer r.upgrades.leave()
	p, err := r.places()
	if p.inPlace != "" {
		return []console.SlotState{{Name: "image", Running: true, Active: true, Version: r.upgrades.running.Version, State: "confirmed"}}, nil
	}
	if err != nil && p.slots[0] == "" {
		return nil, err
	}
	states, err := p.look()
	if err != nil {
		return nil, err
	}
	return slotList(states, p.current, r.upgrades.running.Version), nil
}

// slotList is slots for a board with two: the current one runs this version.
func slotList(states [2]upgrade.State, current int, version string) []console.SlotState {
	next := upgrade.Next(states)
	var all []console.SlotState
	for i, st := range states {
		s := console.SlotState{Name: upgrade.SlotNames[i], Running: i == current, Active: i == next,
			Version: st.Version, Size: st.Length, State: "confirmed"}
		switch {
		case !st.Whole:
			s.State = "empty"
		case st.Confirmed:
		case !st.Tried:
			s.State = "untried"
		case i == current:
			s.State = "on trial"
		default:
			s.State = "failed"
		}
		if i == current {
			s.Version = version
		}
		all = append(all, s)
	}
	return all
}
