package router

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/postern-router/postern/console"
	"github.com/postern-router/postern/kmsg"
	"github.com/postern-router/postern/service"
	"github.com/postern-router/postern/upgrade"
)

const (
	// trialTime is how long a new version has to be well.
	trialTime = time.Minute
	// trialSteady is how long it has to be so without a break.
	trialSteady = 5 * time.Second
	// trialEnd is what an orderly restart of one that is not well may take.
	trialEnd = 30 * time.Second
	// slotsWait is how long the trial waits for who is at the slots. An upgrade is not: its
	// process looks whether the slot is confirmed.
	slotsWait = 10 * time.Second
)

// readSlots reads the states of the slots of a board that has two, and p, where they are.
func (r *Router) readSlots(p places) ([2]upgrade.State, error) {
	if err := r.upgrades.enter(slotsWait); err != nil {
		return [2]upgrade.State{}, err
	}
	defer r.upgrades.leave()
	return p.look()
}

// tellVersion logs which version runs and in which slot, and returns where the slots are. Ok
// is false if there is nothing to fall back to.
func (r *Router) tellVersion() (name string, p places, ok bool) {
	name = "version " + r.upgrades.running.Version
	p, err := r.places()
	switch {
	case err == nil && p.inPlace == "":
		return name + " in slot " + upgrade.SlotNames[p.current], p, true
	case err == nil:
		r.log.Printf(kmsg.Info, "%s, the one image of this flash", name)
	default:
		r.log.Printf(kmsg.Info, "%s, in no slot: %v", name, err)
	}
	return name, p, false
}

// prove tells which version runs in which slot. If the boot loader has started it for the
// first time, that is its trial: if it is well it is confirmed; if not, why is left for the
// old version to tell, and the router restarts, with that one. What hangs or panics before it
// comes to that is the watchdog's and the kernel's to restart, with the same effect.
func (r *Router) prove(ctx context.Context) {
	name, p, ok := r.tellVersion()
	if !ok {
		return
	}
	states, err := r.readSlots(p)
	if err != nil {
		r.log.Printf(kmsg.Info, "%s", name)
		r.log.Printf(kmsg.Error, "slots: %v", err)
		return
	}
	current, other := states[p.current], states[1-p.current]
	if text := fallBack(upgrade.SlotNames[1-p.current], current, other, r.state.get(stateFailure)); text != "" {
		r.log.Printf(kmsg.Error, "%s", text)
	}
	if !current.Whole || current.Confirmed {
		r.log.Printf(kmsg.Info, "%s", name)
		return
	}
	r.log.Printf(kmsg.Notice, "%s is on trial", name)
	err = untilWell(ctx, r.health, trialTime, trialSteady)
	if err == nil {
		err = r.confirmSlot(p)
	}
	switch {
	case ctx.Err() != nil:
	case err != nil:
		r.giveUp(p.current, current, err)
	default:
		r.log.Printf(kmsg.Notice, "%s is confirmed after %s", name, kmsg.Uptime())
	}
}

func (r *Router) confirmSlot(p places) error {
	if err := r.upgrades.enter(slotsWait); err != nil {
		return err
	}
	defer r.upgrades.leave()
	return p.confirm()
}

// fallBack is what there is to tell if the other slot is newer and was not confirmed.
func fallBack(other string, current, failed upgrade.State, note string) string {
	if !failed.Whole || !failed.Tried || failed.Confirmed || failed.Sequence <= current.Sequence {
		return ""
	}
	why, ok := strings.CutPrefix(note, failureOf(other, failed))
	if !ok {
		why = "it ended without a word: it hung and was reset, its kernel panicked, or the power failed"
	}
	return fmt.Sprintf("version %s in slot %s was tried and is not started again: %s", failed.Version, other, why)
}

// failureOf is how the state's line begins that tells why an image was not well.
func failureOf(slot string, st upgrade.State) string {
	return fmt.Sprintf("%s %d ", slot, st.Sequence)
}

// giveUp restarts a version that is not well, and leaves why.
func (r *Router) giveUp(slot int, st upgrade.State, why error) {
	name := upgrade.SlotNames[slot]
	r.log.Printf(kmsg.Critical, "this version is not well: %v; restarting with the one before", why)
	if err := r.state.put(map[string]string{stateFailure: failureOf(name, st) + why.Error()}); err != nil {
		r.log.Printf(kmsg.Error, "%v", err)
	}
	r.ask(console.Reboot)
	// A start that hangs takes no requests.
	time.AfterFunc(trialEnd, r.machine.Restart)
}

// errTooLate is that of a version that is well at the end of its trial, but not for long enough.
var errTooLate = errors.New("it was well too late")

// untilWell asks until well has said nil for steady without a break, or says why it has not
// within limit. A question that is not answered is one more reason. Time in which the machine
// stood still is not counted.
func untilWell(ctx context.Context, well func() error, limit, steady time.Duration) error {
	running, cancel := service.WithTimeout(ctx, limit)
	defer cancel()
	const parts = 5 // of steady, from one question to the next
	last := errors.New("the start has not ended")
	for good := 0; ; {
		answer := make(chan error, 1)
		go func() { answer <- well() }()
		select {
		case last = <-answer:
		case <-running.Done():
			if ctx.Err() != nil {
				return ctx.Err()
			}
			select { // it may just have been asked
			case last = <-answer:
				return cmp.Or(last, errTooLate)
			case <-time.After(steady / parts):
				return fmt.Errorf("it does not say within %v how it is: %w", limit, cmp.Or(last, errTooLate))
			}
		}
		if good++; last != nil {
			good = 0
		}
		if good > parts {
			return nil
		}
		select {
		case <-time.After(steady / parts):
		case <-running.Done():
			return cmp.Or(ctx.Err(), last, errTooLate)
		}
	}
}

// health is why the router does not do what it is for, or nil.
func (r *Router) health() error {
	switch now := r.snapshot(); {
	case !now.applied:
		return errors.New("no configuration is applied")
	case !now.forwarding || now.unmended:
		return errors.New("the configuration could not be applied, forwarding is closed")
	}
	if text, err := os.ReadFile(r.root + "/proc/sys/net/ipv4/ip_forward"); err != nil || strings.TrimSpace(string(text)) != "1" {
		return fmt.Errorf("the kernel does not forward: ip_forward is %q", strings.TrimSpace(string(text)))
	}
	if err := r.portsPresent(); err != nil {
		return err
	}
	return r.Alive()
}

// portsPresent says which port is missing of those that were there before the upgrade,
// and of the LAN's in any case.
func (r *Router) portsPresent() error {
	there, err := r.presentPorts()
	if err != nil {
		return err
	}
	for _, name := range append(strings.Fields(r.state.get(statePorts)), r.board.LAN) {
		if !slices.Contains(there, name) {
			return fmt.Errorf("port %s is missing", name)
		}
	}
	return nil
}

// presentPorts are the ports whose network card is there.
func (r *Router) presentPorts() ([]string, error) {
	links, err := r.network.State()
	if err != nil {
		return nil, fmt.Errorf("ports: %w", err)
	}
	var names []string
	for _, l := range links {
		if l.Present && slices.Contains(r.board.PortNames(), l.Name) {
			names = append(names, l.Name)
		}
	}
	return names, nil
}

// keepPorts leaves for a version that is to be tried which ports it has to find, and
// nothing of the one that was tried before.
func (r *Router) keepPorts() {
	names, err := r.presentPorts()
	if err == nil && r.state.kept() {
		// The next version has the slot and the sequence number of one that was not well.
		err = r.state.put(map[string]string{statePorts: strings.Join(names, " "), stateFailure: ""})
	}
	if err != nil {
		r.log.Printf(kmsg.Warning, "%v", err)
	}
}
