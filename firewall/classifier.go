package firewall

import (
	"slices"
	"strconv"
	"strings"

	"golang.org/x/net/bpf"
)

// This file has per-connection-classifier: a program of the kernel's classic BPF (xt_bpf) computes a hash of the packet's
// addresses and ports, and the rule matches one remainder of it.

const classifierForm = "VALUES:DENOMINATOR/REMAINDER"

const classifierAccepted = "[!]" + classifierForm + ": VALUES both-addresses | both-ports | dst-address | src-address | src-port | dst-port | " +
	"both-addresses-and-ports | src-address-and-port | dst-address-and-port; DENOMINATOR 1..65535, REMAINDER less than that"

// The offsets of what can be hashed in an IPv4 header (RFC 791, section 3.1), and, behind that header, in one of TCP or UDP.
const (
	ipFragment    = 6
	ipProtocol    = 9
	ipSource      = 12
	ipDestination = 16
	sourcePort    = 0
	otherPort     = 2
)

// classified are the addresses and ports of RouterOS's names.
var classified = []struct {
	name             string
	addresses, ports []uint32
}{
	{"src-address", []uint32{ipSource}, nil},
	{"dst-address", []uint32{ipDestination}, nil},
	{"both-addresses", []uint32{ipSource, ipDestination}, nil},
	{"src-port", nil, []uint32{sourcePort}},
	{"dst-port", nil, []uint32{otherPort}},
	{"both-ports", nil, []uint32{sourcePort, otherPort}},
	{"src-address-and-port", []uint32{ipSource}, []uint32{sourcePort}},
	{"dst-address-and-port", []uint32{ipDestination}, []uint32{otherPort}},
	{"both-addresses-and-ports", []uint32{ipSource, ipDestination}, []uint32{sourcePort, otherPort}},
}

// The hash is the last step of MurmurHash3 (Austin Appleby, public domain), in which each bit changes half of the others: neighbours
// are spread as well as strangers.
const (
	murmur1 = 0x85ebca6b
	murmur2 = 0xc2b2ae35
)

// classifier returns the program of a value. The hash of the same addresses and ports is the same on each router and after each start.
// What is not TCP, UDP, UDP-Lite, DCCP or SCTP, and a fragment but the first, counts as of port 0.
func classifier(value string) ([]string, error) {
	value, not := strings.CutPrefix(value, "!")
	name, numbers, some := strings.Cut(value, ":")
	denominator, remainder, both := strings.Cut(numbers, "/")
	i := slices.IndexFunc(classified, func(c struct {
		name             string
		addresses, ports []uint32
	}) bool {
		return c.name == name
	})
	switch {
	case !some || !both:
		return nil, &WordError{value, classifierForm}
	case i < 0:
		var names []string
		for _, c := range classified {
			names = append(names, c.name)
		}
		return nil, &WordError{name, "VALUES " + strings.Join(names, " | ")}
	case !isNumber(denominator, 1, 65535):
		return nil, &WordError{denominator, "DENOMINATOR 1..65535"}
	case !isNumber(remainder, 0, numberOf(denominator)-1):
		return nil, &WordError{remainder, "REMAINDER less than DENOMINATOR, " + denominator}
	}
	// M[0] is the hash of what has been read. The program has at most 64 instructions (XT_BPF_MAX_NUM_INSTR, linux/netfilter/xt_bpf.h).
	var program []bpf.Instruction
	mixed := false
	mix := func() { // what is in A
		if mixed {
			program = append(program, bpf.LoadScratch{Dst: bpf.RegX, N: 0}, bpf.ALUOpX{Op: bpf.ALUOpXor})
		}
		program = append(program,
			bpf.TAX{}, bpf.ALUOpConstant{Op: bpf.ALUOpShiftRight, Val: 16}, bpf.ALUOpX{Op: bpf.ALUOpXor}, bpf.ALUOpConstant{Op: bpf.ALUOpMul, Val: murmur1},
			bpf.TAX{}, bpf.ALUOpConstant{Op: bpf.ALUOpShiftRight, Val: 13}, bpf.ALUOpX{Op: bpf.ALUOpXor}, bpf.ALUOpConstant{Op: bpf.ALUOpMul, Val: murmur2},
			bpf.TAX{}, bpf.ALUOpConstant{Op: bpf.ALUOpShiftRight, Val: 16}, bpf.ALUOpX{Op: bpf.ALUOpXor},
			bpf.StoreScratch{Src: bpf.RegA, N: 0})
		mixed = true
	}
	for _, offset := range classified[i].addresses {
		program = append(program, bpf.LoadAbsolute{Off: offset, Size: 4})
		mix()
	}
	if ports := classified[i].ports; ports != nil {
		// Both ports are one value of 32 bits, in which one that is not asked for is 0.
		load := []bpf.Instruction{bpf.LoadMemShift{Off: 0}, bpf.LoadIndirect{Off: 0, Size: 4}}
		switch {
		case len(ports) == 2:
		case ports[0] == sourcePort:
			load = append(load, bpf.ALUOpConstant{Op: bpf.ALUOpAnd, Val: 0xffff0000})
		default:
			load = append(load, bpf.ALUOpConstant{Op: bpf.ALUOpAnd, Val: 0xffff})
		}
		skip := uint8(len(load))
		program = append(program, bpf.LoadAbsolute{Off: ipProtocol, Size: 1})
		known := []uint32{6, 17, 33, 132, 136}
		for n, protocol := range known {
			program = append(program, bpf.JumpIf{Cond: bpf.JumpEqual, Val: protocol, SkipTrue: uint8(len(known) - n + 1)})
		}
		program = append(program, bpf.LoadConstant{Dst: bpf.RegA}, bpf.Jump{Skip: uint32(skip) + 5},
			bpf.LoadAbsolute{Off: ipFragment, Size: 2}, bpf.ALUOpConstant{Op: bpf.ALUOpAnd, Val: 0x1fff},
			bpf.JumpIf{Cond: bpf.JumpEqual, Val: 0, SkipTrue: 2},
			bpf.LoadConstant{Dst: bpf.RegA}, bpf.Jump{Skip: uint32(skip)})
		program = append(program, load...)
		mix()
	}
	program = append(program, bpf.ALUOpConstant{Op: bpf.ALUOpMod, Val: uint32(numberOf(denominator))})
	hit, miss := uint32(1), uint32(0)
	if not {
		hit, miss = miss, hit
	}
	program = append(program, bpf.JumpIf{Cond: bpf.JumpEqual, Val: uint32(numberOf(remainder)), SkipFalse: 1}, bpf.RetConstant{Val: hit}, bpf.RetConstant{Val: miss})
	raw, err := bpf.Assemble(program)
	if err != nil {
		return nil, err
	}
	text := strconv.Itoa(len(raw))
	for _, r := range raw {
		text += "," + strconv.Itoa(int(r.Op)) + " " + strconv.Itoa(int(r.Jt)) + " " + strconv.Itoa(int(r.Jf)) + " " + strconv.FormatUint(uint64(r.K), 10)
	}
	return []string{"--bytecode", text}, nil
}
