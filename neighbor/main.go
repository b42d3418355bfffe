package neighbor

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/postern-router/postern/ether"
	"github.com/postern-router/postern/service"
)

// Spec is the process. It has no sockets: PID 1 hands it frames, and it says what they are.
var Spec = service.Spec{Name: "neighbor", Start: service.Task, Main: runProcess, MaxMessage: 128 << 10, StopTime: time.Second}

// opParse is the request that PID 1 sends.
const opParse = 1

// MaxFrames is how many frames a job has at most.
const MaxFrames = 64

// Frame is a frame that came in, and which protocol's it may be.
type Frame struct {
	Protocol string
	Bytes    []byte // at most ether.MaxFrame
	SumReady bool   // as ether.Conn.Read says it
}

// Job returns the job of reading at most MaxFrames frames. take is called for each that is an announcement, with
// its place in frames.
func Job(frames []Frame, take func(place int, n Neighbor)) service.Job {
	var e service.Encoder
	frames = frames[:min(len(frames), MaxFrames)]
	e.Uint(uint64(len(frames)))
	for _, f := range frames {
		e.Bool(f.Protocol == LLDP)
		e.Bool(f.SumReady)
		e.String(string(f.Bytes))
	}
	return service.Job{Spec: Spec, Op: opParse, Body: e.Bytes(), Decode: func(d *service.Decoder) {
		type found struct {
			place int
			n     Neighbor
		}
		var all []found
		for range d.Count(len(frames)) {
			place := int(d.Uint(uint64(len(frames) - 1)))
			all = append(all, found{place, decode(d)})
		}
		if d.End() != nil {
			return
		}
		for _, f := range all {
			if f.n.Protocol != frames[f.place].Protocol {
				d.Fail(errors.New("an announcement by another protocol"))
				return
			}
		}
		for _, f := range all {
			take(f.place, f.n)
		}
	}}
}

func runProcess(c *service.Child) error {
	return c.Serve(func(_ context.Context, r *service.Request) ([]byte, error) {
		if r.Op != opParse {
			return nil, fmt.Errorf("%w: request %d", service.ErrBreach, r.Op)
		}
		var e service.Encoder
		var found int
		for place := range r.Count(MaxFrames) {
			lldp, sumReady, frame := r.Bool(), r.Bool(), []byte(r.String(ether.MaxFrame))
			n, err := parse(lldp, sumReady, frame)
			if err != nil {
				continue // whoever sent it
			}
			found++
			e.Uint(uint64(place))
			n.encode(&e)
		}
		if err := r.End(); err != nil {
			return nil, err
		}
		var reply service.Encoder
		reply.Uint(uint64(found))
		return append(reply.Bytes(), e.Bytes()...), nil
	})
}

func parse(lldp, sumReady bool, frame []byte) (Neighbor, error) {
	if lldp {
		return parseLLDP(frame)
	}
	return parseMNDP(frame, sumReady)
}

func (n Neighbor) encode(e *service.Encoder) {
	e.Bool(n.Protocol == LLDP)
	e.String(string(n.MAC[:]))
	e.Bool(n.Address.IsValid())
	if n.Address.IsValid() {
		e.Addr(n.Address)
	}
	for _, s := range n.texts() {
		e.String(*s)
	}
	e.Int(int64(n.Uptime))
	e.Uint(uint64(n.Can))
	e.Uint(uint64(n.Does))
	e.Int(int64(n.Hold))
}

// texts are all of n, in the order in which the link has them.
func (n *Neighbor) texts() []*string {
	return []*string{&n.Identity, &n.Platform, &n.Version, &n.Board, &n.Interface, &n.Description, &n.SoftwareID}
}

// decode reads what PID 1 does not believe: texts are made printable once more.
func decode(d *service.Decoder) Neighbor {
	n := Neighbor{Protocol: MNDP}
	if d.Bool() {
		n.Protocol = LLDP
	}
	if mac := d.String(6); len(mac) == 6 {
		n.MAC = ether.MAC([]byte(mac))
	}
	if d.Bool() {
		n.Address = d.Addr()
	}
	for _, s := range n.texts() {
		*s = text([]byte(d.String(MaxText)))
	}
	n.Uptime, n.Can, n.Does, n.Hold = d.Duration(), uint16(d.Uint(1<<16-1)), uint16(d.Uint(1<<16-1)), d.Duration()
	if !n.MAC.IsHost() || n.Address.IsValid() && !n.Address.Is4() || n.Uptime < 0 || n.Hold < 0 || n.Hold > maxHold {
		d.Fail(errors.New("an announcement that cannot be"))
	}
	return n
}
