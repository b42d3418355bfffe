package router

import (
	"time"

	"github.com/postern-router/postern/kmsg"
)

const (
	// linkBurst is how many changes of links the log is told of at once, linkPause the time after
	// which it is told of one more: a plug that is loose shall not fill it.
	linkBurst = 10
	linkPause = 30 * time.Second
)

// linkLog returns what tells the log that the link of a port is up or down.
func (r *Router) linkLog() func(port string, up bool) {
	log := r.log.About("interface").Limited("changes of links", kmsg.Limit{Burst: linkBurst, Pause: linkPause})
	return func(port string, up bool) {
		word := "down"
		if up {
			word = "up"
		}
		log.Printf(kmsg.Info, "%s link %s", r.snapshot().config.Called(port), word)
	}
}
