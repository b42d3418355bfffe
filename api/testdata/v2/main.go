// Command v2 manages a router by go-routeros v2, which monitoring tools still use: HOST:PORT PASSWORD. It prints what it has
// seen. It is a module of its own, as the library is needed for nothing else.
package main

import (
	"fmt"
	"log"
	"os"
	"strings"
	"time"

	"gopkg.in/routeros.v2"
)

const list = "/ip/firewall/address-list/"

// patience is far longer than anything takes.
const patience = 3 * time.Minute

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}

func main() {
	log.SetFlags(log.Lshortfile)
	address, password := os.Args[1], os.Args[2]
	if _, err := routeros.DialTimeout(address, "admin", "wrong", patience); err == nil || !strings.Contains(err.Error(), "invalid user name or password (6)") {
		log.Fatal(err)
	}
	fmt.Println("a wrong password is refused")
	c, err := routeros.DialTimeout(address, "admin", password, patience)
	check(err)
	c.Async() // else it takes the end of a command that failed for that of the next one
	run := func(words ...string) *routeros.Reply {
		r, err := c.Run(words...)
		check(err)
		return r
	}
	show := func(words ...string) {
		var found []string
		for _, row := range run(append([]string{list + "print", "=.proplist=address"}, words...)...).Re {
			found = append(found, row.Map["address"])
		}
		fmt.Println(strings.Join(found, " "))
	}
	refused := func(words ...string) {
		_, err := c.Run(words...)
		if err == nil {
			log.Fatal(words, ": it is not refused")
		}
		fmt.Println(strings.TrimPrefix(err.Error(), "from RouterOS device: "))
	}

	first := run(list+"add", "=list=friends", "=address=10.1.0.1", "=comment="+strings.Repeat("c", 200)).Done.Map["ret"]
	second := run(list+"add", "=list=friends", "=address=10.1.0.2", "=disabled=yes").Done.Map["ret"]
	fmt.Println(run(list+"print", "=count-only=").Done.Map["ret"])
	show("?list=friends", "?disabled=false")
	show("?address=10.1.0.1", "?disabled=true", "?#|")
	run(list+"set", "=.id="+first, "=address=10.1.0.9")
	show("?.id=" + first)
	run(list+"remove", "=.id="+second)
	refused(list+"remove", "=.id="+second)
	refused("/interface/wireless/print")
	refused(list+"add", "=list=friends", "=address=10.1.0.300")

	listener, err := routeros.DialTimeout(address, "admin", password, patience)
	check(err)
	other, err := listener.Listen("/system/identity/listen")
	check(err)
	told, err := listener.Listen(list+"print", "=follow=", "=.proplist=.id,address")
	check(err)
	fmt.Println((<-told.Chan()).Map["address"])
	third := run(list+"add", "=list=friends", "=address=10.1.0.3").Done.Map["ret"]
	fmt.Println((<-told.Chan()).Map["address"])
	run(list+"remove", "=.id="+first+","+third)
	for range 2 {
		fmt.Println("gone:", (<-told.Chan()).Map[".dead"])
	}
	_, err = told.Cancel()
	check(err)
	_, more := <-told.Chan()
	check(told.Err())
	fmt.Println("the listen goes on:", more)
	_, err = other.Cancel()
	check(err)

	const commands = 100
	start := time.Now()
	for range commands {
		run("/system/identity/print")
	}
	fmt.Fprintf(os.Stderr, "go-routeros v2: %.0f commands a second\n", commands/time.Since(start).Seconds())
	listener.Close()
	c.Close()
}
