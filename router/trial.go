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
	"github.com/postern-router/postern/password"
	"github.com/postern-router/postern/service"
	"github.com/postern-router/postern/upgrade"
)

const (
	// trialTime is how long a new version has to become well.
	trialTime = time.Minute
	// trialSteady is how long it must be well without a break.
	trialSteady = 5 * time.Second
	// trialEnd is how long the orderly restart of a failed version may take.
	trialEnd = 30 * time.Second
	// slotsWait is how long the trial waits for somebody else who reads the slots. That is no
	// upgrade: one is refused while the slot is not confirmed.
	slotsWait = 10 * time.Second
)

// readSlots reads the states of the two slots at p.
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

// runTrial logs which version runs in which slot. If the boot loader has started it for the
// first time, this is its trial. If it is well it is confirmed. If not, the reason is written
// for the old version to tell, and the router restarts with that one. A version that hangs or
// panics before that is restarted by the watchdog or the kernel, with the same effect.
func (r *Router) runTrial(ctx context.Context) {
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

// fallBack returns what to log if the other slot is newer and was tried without success, or
// "".
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

// failureOf is the prefix of the value stateFailure that names the image.
func failureOf(slot string, st upgrade.State) string {
	return fmt.Sprintf("%s %d ", slot, st.Sequence)
}

// giveUp writes why this version is not well, and restarts the router with the one before.
func (r *Router) giveUp(slot int, st upgrade.State, why error) {
	name := upgrade.SlotNames[slot]
	r.log.Printf(kmsg.Critical, "this version is not well: %v; restarting with the one before", why)
	if err := r.state.put(map[string]string{stateFailure: failureOf(name, st) + why.Error()}); err != nil {
		r.log.Printf(kmsg.Error, "%v", err)
	}
	r.request(console.Reboot)
	// While the start hangs nobody takes the request.
	time.AfterFunc(trialEnd, r.machine.Restart)
}

// errTooLate is the error of a version that became well too late in its trial.
var errTooLate = errors.New("it was well too late")

// untilWell calls well until it has returned nil for steady without a break. It returns why
// that did not happen within limit; a call that does not return is a reason too. Time in
// which the machine stood still does not count.
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

// health returns why the router does not do what it is for, or nil.
func (r *Router) health() error {
	switch now := r.snapshot(); {
	case !now.applied:
		return errors.New("no configuration is applied")
	case !now.forwarding || now.incomplete:
		return errors.New("the configuration could not be applied, forwarding is closed")
	case now.config.Locked(password.Never):
		return errLocked
	}
	if text, err := os.ReadFile(r.root + "/proc/sys/net/ipv4/ip_forward"); err != nil || strings.TrimSpace(string(text)) != "1" {
		return fmt.Errorf("the kernel does not forward: ip_forward is %q", strings.TrimSpace(string(text)))
	}
	if err := r.portsPresent(); err != nil {
		return err
	}
	return r.Alive()
}

// portsPresent returns an error if a port is missing that was there before the upgrade, or
// the LAN's.
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

// presentPorts returns the ports that have a network device.
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

// keepPorts writes, for the version that will be tried, which ports it must find, and forgets
// why the one before failed.
func (r *Router) keepPorts() {
	names, err := r.presentPorts()
	if err == nil && r.state.kept() {
		// The new version may have the slot and the sequence number of one that failed.
		err = r.state.put(map[string]string{statePorts: strings.Join(names, " "), stateFailure: ""})
	}
	if err != nil {
		r.log.Printf(kmsg.Warning, "%v", err)
	}
}
