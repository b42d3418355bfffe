package nlattr

import (
	"errors"
	"fmt"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

func TestEach(t *testing.T) {
	outer := nl.NewRtAttr(3|unix.NLA_F_NESTED, nil)
	outer.AddRtAttr(7|unix.NLA_F_NET_BYTEORDER, []byte("abcde"))
	b := append(nl.NewRtAttr(1, []byte("x")).Serialize(), outer.Serialize()...)
	told := ""
	var tell func(typ uint16, value []byte) error
	tell = func(typ uint16, value []byte) error {
		if typ == 3 {
			return Each(value, tell)
		}
		told += fmt.Sprintf("%d=%s ", typ, value)
		return nil
	}
	require.NoError(t, Each(b, tell))
	assert.Equal(t, "1=x 7=abcde ", told)
	require.NoError(t, Each(nil, tell))
	require.ErrorContains(t, Each(b[:len(b)-4], tell), "attribute 32771 of 16 bytes, where there are 12")
	wrong := errors.New("wrong")
	assert.Equal(t, wrong, Each(b, func(uint16, []byte) error { return wrong }))
}

func FuzzEach(f *testing.F) {
	f.Add(nl.NewRtAttr(1, []byte("xyz")).Serialize())
	f.Add([]byte{2, 0, 1, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		size := 0
		_ = Each(b, func(_ uint16, value []byte) error {
			size += unix.SizeofRtAttr + len(value)
			return nil
		})
		assert.LessOrEqual(t, size, len(b))
	})
}
