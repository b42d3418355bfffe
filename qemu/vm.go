package main

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/u-root/mkuimage/cpio"

	"github.com/postern-router/postern/board"
)

// machine is a board that runs in QEMU, its ports on the lab's links.
type machine struct {
	board   board.Board
	dir     string
	cmd     *exec.Cmd
	serial  *serialLine
	screen  *screen
	monitor *monitor
	stderr  *screen
	// exited is closed when QEMU has ended and the screen has all that it has printed.
	exited  chan struct{}
	exitErr error
}

// machineOptions are what a start can vary.
type machineOptions struct {
	// image is the folder with kernel and initramfs.cpio.xz.
	image string
	// configuration replaces the image's default, in the command language.
	configuration string
	// boardFile replaces the image's /etc/board.
	boardFile string
	// within is the program of testdata/within for the board, which is started in place of PID 1 and becomes it.
	within []byte
	// flash is the file of the board's flash, made if there is none; by itself, one in
	// the machine's folder. It outlives the machine.
	flash string
	// wornFlash is one that can be read and takes nothing.
	wornFlash bool
	// heldFlash lets a test hold back what the flash answers: see holdFlash.
	heldFlash bool
	// fromFlash begins with the boot loader that the flash holds. A configuration is then
	// put where the flash keeps it, when the flash is made.
	fromFlash bool
	// uefi starts a PC by UEFI, not by BIOS.
	uefi bool
	// flashDevice is the -device that takes the drive of the flash, if not the board's.
	flashDevice string
	// commandLine is added to the board's.
	commandLine string
	// memory is in MiB, if it is not the board's.
	memory int
	// debugged lets a test stop the machine as a debugger does, by the socket gdb.
	debugged bool
	// kvm asks for the host's processor instead of emulation.
	kvm bool
	// reboot lets the machine start again when it reboots; without, QEMU ends.
	reboot bool
	// capture records each link in a pcap file.
	capture bool
	// router is which one of several in one network it is: see addRouter.
	router int
	// rescue is a folder that the boot loader of a Malta finds by TFTP, behind a card that
	// it has a driver for and Postern has none.
	rescue string
}

// machineEnded, if there is one, is told of each QEMU that has ended, and the folder of its files.
var machineEnded func(dir string, of *os.ProcessState)

// startMachine boots the board. Its files are in dir.
func startMachine(b board.Board, n network, dir string, o machineOptions) (*machine, error) {
	boot, err := bootArguments(b, dir, o)
	if err != nil {
		return nil, err
	}
	if o.flash == "" {
		o.flash = filepath.Join(dir, "flash")
	}
	made, err := makeFlash(b, o, o.flash)
	if err == nil && made && o.fromFlash && o.configuration != "" {
		err = keep(b, o.flash, 1, o.configuration)
	}
	if err != nil {
		return nil, fmt.Errorf("flash for %s: %w", b.Name, err)
	}
	var order swapped
	if o.fromFlash {
		if order, err = swapFlash(b, o.flash); err != nil {
			return nil, err
		}
	}
	m := &machine{board: b, dir: dir, screen: newScreen(), stderr: newScreen(), exited: make(chan struct{})}
	if m.serial, err = openSerialLine(filepath.Join(dir, "serial"), m.screen); err != nil {
		return nil, errors.Join(fmt.Errorf("serial line of %s: %w", b.Name, err), order.restore())
	}
	args := []string{
		"-nodefaults", "-no-user-config", "-display", "none",
		// Threads have names: processorTime finds the one that plays the processor.
		"-name", b.Name + ",debug-threads=on",
		"-machine", b.QEMU.Machine,
		"-chardev", "pipe,id=serial,path=" + m.serial.path,
		"-serial", "chardev:serial",
		"-qmp", "unix:" + filepath.Join(dir, "qmp") + ",server=on,wait=off",
	}
	args = append(args, boot...)
	if o.kvm {
		args = append(args, "-accel", "kvm", "-cpu", "host")
	} else {
		args = append(args, "-accel", "tcg")
		if b.QEMU.CPU != "" {
			args = append(args, "-cpu", b.QEMU.CPU)
		}
	}
	for _, bank := range b.QEMU.Banks {
		if bank.Firmware && !o.fromFlash {
			continue
		}
		// Two drives cannot lock one file.
		file := "file.locking=off,file=" + o.flash
		if o.heldFlash {
			file = "file.driver=blkdebug,file.image.driver=file,file.image.locking=off,file.image.filename=" + o.flash
		}
		args = append(args, "-drive", fmt.Sprintf("%s,format=raw,offset=%d,size=%d,%s",
			bank.Drive, bank.Offset, bank.Size, file)+map[bool]string{true: ",readonly=on"}[o.wornFlash])
	}
	if b.QEMU.Watchdog != "" {
		args = append(args, "-device", b.QEMU.Watchdog)
	}
	if device := cmp.Or(o.flashDevice, b.QEMU.FlashDevice); device != "" {
		args = append(args, "-device", device)
	}
	if !o.reboot {
		args = append(args, "-no-reboot")
	}
	if o.debugged {
		args = append(args, "-gdb", "unix:"+filepath.Join(dir, "gdb")+",server=on,wait=off")
	}
	if o.rescue != "" {
		args = append(args, "-netdev", "user,id=rescue,net=192.168.0.0/24,host="+clientAddress+",tftp="+o.rescue,
			"-device", "pcnet,netdev=rescue,addr=0xb,romfile=")
	}
	for i, p := range b.Ports {
		if p.QEMU == "" {
			continue // one that the machine is without
		}
		args = append(args,
			"-netdev", "tap,id=net-"+p.Name+",script=no,downscript=no,ifname="+tapName(linkOf(b, p), o.router))
		if p.OnBoard {
			args = append(args, "-net", fmt.Sprintf("nic,model=%s,netdev=net-%s,macaddr=%s", p.QEMU, p.Name, portMAC(i, o.router)))
		} else {
			args = append(args, "-device", portDevice(b, i, o.router))
		}
		if o.capture {
			// The headers tell what went wrong; the payload would fill the disk.
			args = append(args, "-object", fmt.Sprintf("filter-dump,id=dump-%s,netdev=net-%s,maxlen=128,file=%s",
				p.Name, p.Name, filepath.Join(dir, p.Name+".pcap")))
		}
	}
	m.cmd = n.command(switchHost, b.QEMU.Binary, args...)
	m.cmd.Stderr = m.stderr
	if err := m.cmd.Start(); err != nil {
		m.serial.close()
		err = errors.Join(err, order.restore())
		return nil, fmt.Errorf("start %s (Debian package %s): %w", b.QEMU.Binary, b.QEMU.Package, err)
	}
	go func() {
		m.exitErr = m.cmd.Wait()
		if machineEnded != nil {
			machineEnded(dir, m.cmd.ProcessState)
		}
		m.exitErr = errors.Join(m.exitErr, order.restore())
		m.serial.drain()
		close(m.exited)
	}()
	if err := m.connect(); err != nil {
		m.kill()
		return nil, fmt.Errorf("QEMU for %s: %w\n%s", b.Name, err, m.stderr.all())
	}
	return m, nil
}

// plainCard makes of QEMU's virtio card one like a small router's: every frame is
// one that fits an Ethernet cable, in both directions. As it comes, the card
// passes the 64 kB segments of the lab's hosts through the router whole, and
// forwarding, which then touches a header for 64 kB, looks more than ten times as
// fast. The router's kernel may still join frames and cut them again (GRO, GSO).
// Checksums stay the card's work: without, forwarding costs about the same, but
// virtio loses scatter-gather too, so that cutting what GRO joined copies it.
const plainCard = ",gso=off,guest_tso4=off,guest_tso6=off,guest_ecn=off,guest_ufo=off" +
	",host_tso4=off,host_tso6=off,host_ecn=off,host_ufo=off"

// portDevice is the -device argument of the board's i-th port, from 0.
func portDevice(b board.Board, i, router int) string {
	p := b.Ports[i]
	device := fmt.Sprintf("%s,id=%s,netdev=net-%s,mac=%s", p.QEMU, p.Name, p.Name, portMAC(i, router))
	if strings.HasPrefix(p.QEMU, "virtio") {
		device += plainCard
	}
	return device
}

func portMAC(i, router int) string { return fmt.Sprintf("02:70:6f:73:%02x:%02x", 0x74+router, i+1) }

// linkOf is the lab's link that a port is on: ether1 outside, ether2 in the LAN; further ports of the LAN have links of
// their own names, see addLink.
func linkOf(b board.Board, p board.Port) string {
	switch {
	case p.Name == b.WAN:
		return "ether1"
	case slices.Contains(b.Bridged, p.Name):
		return p.Name
	}
	return "ether2"
}

// addConfiguration returns an initramfs with the configuration, and the file of the board, that are
// asked for: the kernel unpacks one archive behind another, and the later file stays.
// The image itself is the one that is flashed, bit by bit.
func addConfiguration(o machineOptions, dir string) (string, error) {
	shipped, err := os.ReadFile(filepath.Join(o.image, "initramfs.cpio.xz"))
	if err != nil {
		return "", err
	}
	whole := bytes.NewBuffer(shipped)
	if o.configuration != "" || o.boardFile != "" || o.within != nil {
		for whole.Len()%4 != 0 {
			whole.WriteByte(0)
		}
		w := cpio.Newc.Writer(whole)
		for name, text := range map[string]string{"etc/default.rsc": o.configuration, "etc/board": o.boardFile} {
			if text == "" {
				continue
			}
			if err := w.WriteRecord(cpio.StaticFile(name, text, 0o644)); err != nil {
				return "", err
			}
		}
		if o.within != nil {
			if err := w.WriteRecord(cpio.StaticFile("within", string(o.within), 0o755)); err != nil {
				return "", err
			}
		}
		if err := cpio.WriteTrailer(w); err != nil {
			return "", err
		}
	}
	path := filepath.Join(dir, "initramfs")
	return path, os.WriteFile(path, whole.Bytes(), 0o644)
}

// holdFlash has a machine with heldFlash hold back the flash's answer to the next request of a kind (write_aio or read_aio,
// block/raw-format.c of QEMU), until the function is called that it returns. Other requests are answered.
func (m *machine) holdFlash(kind string) (answer func() error, err error) {
	io := func(command string) error {
		return m.monitor.execute("human-monitor-command", map[string]any{"command-line": `qemu-io flash "` + command + ` held"`})
	}
	return func() error { return io("resume") }, io("break " + kind)
}

// connect opens the monitor.
func (m *machine) connect() error {
	qmp, err := m.dial("qmp")
	if err != nil {
		return err
	}
	m.monitor, err = newMonitor(qmp)
	return err
}

// dial connects to one of QEMU's sockets as soon as it is there.
func (m *machine) dial(name string) (net.Conn, error) {
	for {
		conn, err := net.Dial("unix", filepath.Join(m.dir, name))
		if err == nil {
			return conn, nil
		}
		select {
		case <-m.exited:
			return nil, fmt.Errorf("ended at once: %w", m.exitErr)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// patience is how long is waited for what comes in any case if the router works. It is no
// measure of how fast anything is: it only ends a test that would wait for ever, and is longer
// than a busy host, or one that stands still for a while, has ever taken.
const patience = 10 * time.Minute

// expect waits until the console has printed text since the last expect, and
// returns everything up to and with it.
func (m *machine) expect(text string) (string, error) {
	before, err := m.screen.expect(text, patience, m.exited)
	if err != nil {
		return before, fmt.Errorf("console of %s: %w; it ends with:\n%s\n%s", m.board.Name, err, m.screen.tail(40), m.stderr.all())
	}
	return before, nil
}

// send types text.
func (m *machine) send(text string) error {
	if _, err := m.serial.in.WriteString(text); err != nil {
		return fmt.Errorf("console of %s: %w", m.board.Name, err)
	}
	return nil
}

// command types a line at the console's prompt and returns what it printed, without what the kernel and the log wrote to the
// same screen meanwhile.
func (m *machine) command(line string) (string, error) {
	m.screen.forget()
	if err := m.send(line + "\r"); err != nil {
		return "", err
	}
	if _, err := m.expect(line); err != nil {
		return "", err
	}
	out, err := m.expect("\n[admin@")
	if err != nil {
		return "", err
	}
	if _, err := m.expect("> "); err != nil {
		return "", err
	}
	return answer(out), nil
}

// answer is what a command printed, of what the screen had behind the typed line until the next prompt.
func answer(shown string) string {
	shown = kernelLine.ReplaceAllString(strings.TrimSuffix(shown, "[admin@"), "")
	return strings.TrimPrefix(strings.ReplaceAll(shown, "\r\n", "\n"), "\n")
}

// processorTime is how long the host has worked for the machine's processor, which
// is a thread of QEMU's: what else the host does counts less in it than in the
// time on the wall.
func (m *machine) processorTime() (time.Duration, error) {
	ran, _, err := m.scheduled()
	return ran, err
}

// pause sleeps for so long of the machine's time: when it was ready to run and the host ran other programs does not count.
func (m *machine) pause(d time.Duration) error {
	_, before, err := m.scheduled()
	for err == nil && d > 0 {
		time.Sleep(d)
		var waited time.Duration
		_, waited, err = m.scheduled()
		d, before = waited-before, waited
	}
	return err
}

// scheduled is how long the machine's processor ran, and how long it was ready to and did not.
func (m *machine) scheduled() (ran, waited time.Duration, err error) {
	tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*", m.cmd.Process.Pid))
	if err != nil {
		return 0, 0, err
	}
	for _, task := range tasks {
		name, err := os.ReadFile(filepath.Join(task, "comm"))
		if err != nil || !strings.HasPrefix(string(name), "CPU 0/") {
			continue
		}
		// Nanoseconds (Documentation/scheduler/sched-stats.rst).
		text, err := os.ReadFile(filepath.Join(task, "schedstat"))
		if err != nil {
			return 0, 0, fmt.Errorf("processor time of %s: %w", m.board.Name, err)
		}
		var running, waiting int64
		if _, err := fmt.Sscan(string(text), &running, &waiting); err != nil {
			return 0, 0, fmt.Errorf("processor time of %s: %w", m.board.Name, err)
		}
		return time.Duration(running), time.Duration(waiting), nil
	}
	return 0, 0, fmt.Errorf("processor time of %s: QEMU has no thread that is named so", m.board.Name)
}

// kill ends the machine as a cut of its power would.
func (m *machine) kill() {
	if m.monitor != nil {
		m.monitor.close()
	}
	select {
	case <-m.exited:
	default:
		_ = m.cmd.Process.Kill()
		<-m.exited
	}
	m.serial.close()
}

// screen collects what a console prints, and lets somebody wait for a text in it.
type screen struct {
	mu      sync.Mutex
	text    []byte
	seen    int // text up to here was returned by expect
	changed chan struct{}
	mirror  io.Writer
}

func newScreen() *screen { return &screen{changed: make(chan struct{})} }

// kernelLine is what the kernel writes to the console, whoever types there.
var kernelLine = regexp.MustCompile(`\[ *\d+\.\d{6}\] [^\r\n]*\r\n`)

// maxKernelLine is more than any of them has, in bytes.
const maxKernelLine = 1 << 10

// randomReady is what the kernel says once, when it has gathered enough chance: up to half
// a minute after its start, so that it may be on any screen.
const randomReady = "random: crng init done\r\n"

func (s *screen) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.text = append(s.text, p...)
	s.part(max(s.seen, len(s.text)-len(p)-maxKernelLine))
	if s.mirror != nil {
		_, _ = s.mirror.Write(p)
	}
	close(s.changed)
	s.changed = make(chan struct{})
	return len(p), nil
}

// part takes the kernel's lines from that place on out of the lines that they came in the
// middle of, to before them, as if the kernel had waited. randomReady is taken out for good.
func (s *screen) part(from int) {
	for {
		at := kernelLine.FindIndex(s.text[from:])
		if at == nil {
			return
		}
		start, end := from+at[0], from+at[1]
		line := bytes.Clone(s.text[start:end])
		if bytes.HasSuffix(line, []byte(randomReady)) {
			s.text = slices.Delete(s.text, start, end)
			from = start
			continue
		}
		begin := max(s.seen, bytes.LastIndexByte(s.text[:start], '\n')+1)
		copy(s.text[begin+len(line):end], s.text[begin:start])
		copy(s.text[begin:], line)
		from = end
	}
}

// mirrorTo copies what comes from now on to w, or to nobody if w is nil.
func (s *screen) mirrorTo(w io.Writer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mirror = w
}

// errEnded says that QEMU ended before what was waited for came.
var errEnded = errors.New("QEMU has ended")

func (s *screen) expect(text string, timeout time.Duration, ended <-chan struct{}) (found string, err error) {
	err = s.await(text, timeout, ended, func() bool {
		i := bytes.Index(s.text[s.seen:], []byte(text))
		if i < 0 {
			return false
		}
		end := s.seen + i + len(text)
		found, s.seen = string(s.text[s.seen:end]), end
		return true
	})
	return found, err
}

// await waits until is holds, which it calls whenever more has come, while nothing can.
func (s *screen) await(what string, timeout time.Duration, ended <-chan struct{}, is func() bool) error {
	timer := time.NewTimer(timeout)
	defer timer.Stop()
	last := false
	for {
		s.mu.Lock()
		found, changed := is(), s.changed
		s.mu.Unlock()
		if found {
			return nil
		}
		select {
		case <-changed:
		case <-ended: // and the screen has all of it
			if last {
				return fmt.Errorf("wait for %q: %w", what, errEnded)
			}
			last = true
		case <-timer.C:
			// If this process stood still, it is there all the same: look once more.
			if last {
				return fmt.Errorf("wait for %q: time is up after %v", what, timeout)
			}
			last = true
			timer.Reset(0)
		}
	}
}

// forget makes expect look only at what comes from now on.
func (s *screen) forget() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.seen = len(s.text)
}

// all returns everything that was printed since the start.
func (s *screen) all() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return string(s.text)
}

func (s *screen) tail(lines int) string {
	all := strings.Split(strings.ReplaceAll(s.all(), "\r", ""), "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}
