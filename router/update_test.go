package router

import (
	"crypto/ed25519"
	"crypto/sha256"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/postern-router/postern/console"
	"github.com/postern-router/postern/service"
	"github.com/postern-router/postern/upgrade"
)

// What the update server has is told by the signed header of its image alone, of which no more than that is needed.
func TestCheckForUpdates(t *testing.T) {
	g := newRig(t)
	g.r.supervisor = realSupervisor(t, g.r.log, g.log)
	public, private, err := ed25519.GenerateKey(nil)
	require.NoError(t, err)
	g.file(upgrade.KeyFile, fmt.Sprintf("%x\n", []byte(public)))
	g.r.upgrades.running = upgrade.Running{Board: "rig", Version: "v1", Date: time.Unix(1000, 0).UTC()}
	image := make([]byte, 1<<20)
	sign := func(version string, date int64, key ed25519.PrivateKey) []byte {
		head, err := upgrade.Header{Board: "rig", Version: version, Date: time.Unix(date, 0), Length: int64(len(image)), Sum: sha256.Sum256(image)}.Sign(key)
		require.NoError(t, err)
		return append(head, image...)
	}
	_, foreign, err := ed25519.GenerateKey(nil)
	require.NoError(t, err)
	files := map[string][]byte{"/new": sign("v2", 2000, private), "/same": sign("v1", 1000, private), "/foreign": sign("v3", 3000, foreign), "/page": []byte("<html>"), "/slow": sign("v2", 2000, private)[:upgrade.HeaderSize],
		"/slow/foreign": sign("v3", 3000, foreign)[:upgrade.HeaderSize]}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		data, ok := files[strings.TrimSuffix(r.URL.Path, "/rig/sysupgrade.img")]
		if !ok {
			http.NotFound(w, r)
			return
		}
		_, _ = w.Write(data)
		if strings.HasPrefix(r.URL.Path, "/slow") {
			_ = http.NewResponseController(w).Flush()
			<-r.Context().Done()
		}
	}))
	defer server.Close()
	for _, c := range []struct{ folder, latest, status string }{
		{"/new", "v2", "New version is available"},
		{"/slow", "v2", "New version is available"}, // the header is all that comes
		{"/same", "v1", "System is already up to date"},
		{"/slow/foreign", "", "ERROR: wrong signature: the image is damaged, or signed with another key"},
		{"/foreign", "", "ERROR: wrong signature: the image is damaged, or signed with another key"},
		{"/page", "", "ERROR: the image ends after 6 bytes, in its header"},
		{"/none", "", "ERROR: get " + server.URL + "/none/rig/sysupgrade.img: the server answers 404 Not Found"},
	} {
		g.r.now.running.UpdateURL = server.URL + c.folder
		var out strings.Builder
		patience, cancel := service.WithTimeout(t.Context(), checkTime)
		require.NoError(t, g.r.checkForUpdates(t.Context(), &out))
		assert.NoError(t, patience.Err(), "%s: the server was waited for", c.folder)
		cancel()
		assert.Equal(t, console.UpdateState{Latest: c.latest, Status: c.status}, g.r.updateState(), c.folder)
		assert.Contains(t, out.String(), "status: "+c.status+"\n")
	}
	// Meanwhile an upgrade says how far it is.
	g.r.upgrades.setStop(func() {})
	g.r.upgrades.setStatus("10% written" + strings.Repeat(".", 2*maxStatus))
	require.NoError(t, g.r.checkForUpdates(t.Context(), io.Discard))
	assert.Regexp(t, `^10% written\.+$`, g.r.updateState().Status)
	assert.Len(t, g.r.updateState().Status, maxStatus)
}
