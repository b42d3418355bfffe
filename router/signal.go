package router

// signal wakes the one goroutine that receives from it. Signals that come before it looks are one.
type signal chan struct{}

func newSignal() signal { return make(signal, 1) }

// send does not wait.
func (s signal) send() {
	select {
	case s <- struct{}{}:
	default: // it wakes anyway
	}
}
