package firewall

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/net/bpf"
)

// programOf is the program of a value of per-connection-classifier.
func programOf(t testing.TB, value string) (program []bpf.Instruction) {
	words, err := classifier(value)
	require.NoError(t, err, value)
	for i, text := range strings.Split(words[1], ",") {
		if i == 0 {
			n, err := strconv.Atoi(text)
			require.NoError(t, err)
			require.LessOrEqual(t, n, 64)
			continue
		}
		var raw bpf.RawInstruction
		_, err := fmt.Sscanf(text, "%d %d %d %d", &raw.Op, &raw.Jt, &raw.Jf, &raw.K)
		require.NoError(t, err)
		program = append(program, raw.Disassemble())
	}
	return program
}

// hasher runs the program of a value.
func hasher(t testing.TB, value string) *bpf.VM {
	vm, err := bpf.NewVM(programOf(t, value))
	require.NoError(t, err)
	return vm
}

// ipv4 is the beginning of a packet, with options of so many bytes in its header.
func ipv4(src, dst string, protocol byte, sport, dport uint16, options int) []byte {
	b := make([]byte, 20+options+4)
	b[0], b[9] = 0x45+byte(options/4), protocol
	s, d := netip.MustParseAddr(src).As4(), netip.MustParseAddr(dst).As4()
	copy(b[12:], s[:])
	copy(b[16:], d[:])
	binary.BigEndian.PutUint16(b[20+options:], sport)
	binary.BigEndian.PutUint16(b[22+options:], dport)
	return b
}

// What a classifier is told to hash decides alone, and all remainders together take each packet once.
func TestClassifier(t *testing.T) {
	base := ipv4("192.168.88.10", "198.51.100.7", 6, 40000, 443, 0)
	others := map[string][]byte{
		"src-address": ipv4("192.168.88.11", "198.51.100.7", 6, 40000, 443, 0),
		"dst-address": ipv4("192.168.88.10", "198.51.100.8", 6, 40000, 443, 0),
		"src-port":    ipv4("192.168.88.10", "198.51.100.7", 6, 40001, 443, 0),
		"dst-port":    ipv4("192.168.88.10", "198.51.100.7", 6, 40000, 444, 0),
		"options":     ipv4("192.168.88.10", "198.51.100.7", 6, 40000, 443, 8),
	}
	const denominator = 65535 // so that no two are the same by chance
	share := func(name string, packet []byte) int { return remainderOf(t, name, packet, denominator) }
	for name, by := range map[string]string{
		"src-address": "src-address", "dst-address": "dst-address", "both-addresses": "src-address dst-address", "src-port": "src-port", "dst-port": "dst-port",
		"both-ports": "src-port dst-port", "src-address-and-port": "src-address src-port", "dst-address-and-port": "dst-address dst-port",
		"both-addresses-and-ports": "src-address dst-address src-port dst-port",
	} {
		is := share(name, base)
		for part, packet := range others {
			assert.Equal(t, !strings.Contains(" "+by+" ", " "+part+" "), is == share(name, packet), "%s: another %s", name, part)
		}
	}
	// What has no ports counts as of port 0, and so does a fragment.
	icmp, fragment := ipv4("10.0.0.1", "10.0.0.2", 1, 1, 2, 0), ipv4("10.0.0.1", "10.0.0.2", 17, 1, 2, 0)
	fragment[7] = 1
	none := share("both-ports", ipv4("10.0.0.1", "10.0.0.2", 17, 0, 0, 0))
	assert.Equal(t, none, share("both-ports", icmp))
	assert.Equal(t, none, share("both-ports", fragment))
	assert.NotEqual(t, none, share("both-ports", ipv4("10.0.0.1", "10.0.0.2", 17, 1, 2, 0)))

	for _, name := range []string{"src-address", "both-addresses-and-ports"} {
		not := hasher(t, "!"+name+":3/1")
		hits := 0
		for r := range 3 {
			n, err := hasher(t, fmt.Sprintf("%s:3/%d", name, r)).Run(base)
			require.NoError(t, err)
			hits += n
			if r == 1 {
				other, err := not.Run(base)
				require.NoError(t, err)
				assert.Equal(t, 1, n+other)
			}
		}
		assert.Equal(t, 1, hits)
	}
}

// remainderOf is the remainder that a packet has.
func remainderOf(t testing.TB, name string, packet []byte, denominator int) int {
	program := programOf(t, fmt.Sprintf("%s:%d/0", name, denominator))
	// In the place of its last three instructions, which compare it, it is returned.
	vm, err := bpf.NewVM(append(program[:len(program)-3:len(program)-3], bpf.RetA{}))
	require.NoError(t, err)
	n, err := vm.Run(packet)
	require.NoError(t, err)
	return n
}

// Neighbours are spread over the shares as well as strangers: hosts of a network, and the ports that a host takes one after the other.
func TestClassifierSpreads(t *testing.T) {
	for _, denominator := range []int{2, 3, 4, 5, 8} {
		for name, packet := range map[string]func(i int) []byte{
			"src-address":              func(i int) []byte { return ipv4(fmt.Sprintf("192.168.88.%d", i), "1.1.1.1", 6, 1, 1, 0) },
			"dst-address":              func(i int) []byte { return ipv4("10.0.0.1", fmt.Sprintf("10.%d.0.0", i), 6, 1, 1, 0) },
			"both-addresses":           func(i int) []byte { return ipv4(fmt.Sprintf("10.0.0.%d", i), fmt.Sprintf("10.0.1.%d", i), 6, 1, 1, 0) },
			"both-ports":               func(i int) []byte { return ipv4("10.0.0.1", "10.0.0.2", 17, uint16(40000+i), 443, 0) },
			"both-addresses-and-ports": func(i int) []byte { return ipv4("10.0.0.1", "10.0.0.2", 6, uint16(32768+2*i), 443, 0) },
		} {
			shares := make([]int, denominator)
			for i := 1; i <= 240; i++ {
				shares[remainderOf(t, name, packet(i), denominator)]++
			}
			for _, n := range shares {
				assert.InDelta(t, 240/denominator, n, 240.0/float64(denominator)*0.5, "%s:%d: %v", name, denominator, shares)
			}
		}
	}
}
