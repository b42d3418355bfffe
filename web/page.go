package web

import (
	_ "embed"
)

// The page is page.html, packed, with its style and its script in it. POSTERN_GOLDEN=write go test ./web -run TestPage
// packs it, and writes the policy that lets a browser run that script alone.
var (
	//go:embed page.html.gz
	packedPage string
	//go:embed page.policy
	pagePolicy string
)

// showPage shows the page, which has nothing of the router in it: its script asks for all that, and for a login.
func showPage(w *response, r *request) {
	if !r.acceptsGzip {
		w.fail(406, "the page is packed by gzip, which this client does not take; see /rest and /metrics")
		return
	}
	w.contentType, w.policy = "text/html; charset=utf-8", pagePolicy
	w.fields = append(w.fields, "Content-Encoding: gzip")
	_, _ = w.Write([]byte(packedPage))
}
