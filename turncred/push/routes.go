package push

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"io"
	"mime"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"epcscf/turncred"
)

// route is a resource with its one method.
type route struct {
	op, method, pattern string
	roles               []Role
	maxBody             int64 // 0: none
	write               bool  // has a node and an epoch
	serve               func(*Server, *call) *Problem
}

// call is a request that has been let in.
type call struct {
	w    http.ResponseWriter
	r    *http.Request
	peer Peer
	book *book // of a write
	body []byte
}

var (
	edgesOnly = []Role{RoleEdge}
	writers   = []Role{RoleEdge, RoleWAF}
)

var routes = []route{
	{"put", http.MethodPut, credentialsPath + "{tid}", edgesOnly, maxSingle, true, (*Server).putCredential},
	{"revoke", http.MethodDelete, credentialsPath + "{tid}", writers, 0, true, (*Server).deleteCredential},
	{"revoke", http.MethodDelete, subjectsPath + "{subject}", writers, 0, true, (*Server).deleteSubject},
	{"batch", http.MethodPost, batchPath, writers, maxBody, true, (*Server).batch},
	{"snapshot", http.MethodPut, snapshotPath, writers, maxBody, true, (*Server).snapshot},
	{"digest", http.MethodGet, digestPath, writers, 0, false, (*Server).digest},
	{"events", http.MethodGet, eventsPath, writers, 0, false, (*Server).events},
}

// Handler serves the interface. Requests must come over TLS; Serve sees to that.
func (s *Server) Handler() http.Handler {
	mux := http.NewServeMux()
	methods := map[string][]string{}
	for _, rt := range routes {
		methods[rt.pattern] = append(methods[rt.pattern], rt.method)
		mux.HandleFunc(rt.method+" "+rt.pattern, func(w http.ResponseWriter, r *http.Request) { s.handle(rt, w, r) })
	}
	for pattern, allowed := range methods {
		mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Allow", strings.Join(allowed, ", "))
			s.refuse("other", w, problem(http.StatusMethodNotAllowed, CauseMethod, "use %s", strings.Join(allowed, " or ")))
		})
	}
	mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) {
		s.refuse("other", w, problem(http.StatusNotFound, CauseNotFound, "there is no such resource"))
	})
	return mux
}

func (s *Server) refuse(op string, w http.ResponseWriter, p *Problem) {
	s.metrics.count(op, p.Status)
	p.write(w)
}

func (s *Server) handle(rt route, w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Cache-Control", "no-store")
	peer, p := s.admit(rt, r)
	if p != nil {
		s.log.Warn("credential interface: request refused", "op", rt.op, "remote", r.RemoteAddr, "reason", p.Cause, "err", p.Detail)
		s.refuse(rt.op, w, p)
		return
	}
	s.cfg.Contact()
	c := &call{w: w, r: r, peer: peer}
	if p = s.read(rt, c); p == nil {
		p = rt.serve(s, c)
	}
	if p != nil {
		s.log.Debug("credential interface: request refused", "op", rt.op, "node", peer.String(), "reason", p.Cause, "err", p.Detail)
		s.refuse(rt.op, w, p)
		return
	}
	s.metrics.count(rt.op, http.StatusOK)
}

// admit says whose request it is, and whether that node may make it.
func (s *Server) admit(rt route, r *http.Request) (Peer, *Problem) {
	if err := s.stillTrusted(r); err != nil {
		return Peer{}, problem(http.StatusForbidden, CauseCertificate, "%v", err)
	}
	peer, err := PeerOf(r.TLS.PeerCertificates[0], s.cfg.Domain)
	if err != nil {
		return peer, problem(http.StatusForbidden, CauseForbidden, "%v", err)
	}
	if !slices.Contains(rt.roles, peer.Role) || !slices.Contains(s.cfg.Writers, peer.Role) {
		return peer, problem(http.StatusForbidden, CauseForbidden, "role %s may not do this", peer.Role)
	}
	if node := r.Header.Get(nodeHeader); rt.write && node != peer.Name {
		return peer, problem(http.StatusForbidden, CauseNotYours, "%s is %.64q, and the certificate is that of %q", nodeHeader, node, peer.Name)
	}
	return peer, nil
}

type trustKey struct{}

// stillTrusted checks the certificate anew where it or the authorities are not what they
// were at the handshake.
func (s *Server) stillTrusted(r *http.Request) error {
	if r.TLS == nil || len(r.TLS.PeerCertificates) == 0 {
		return errors.New("no certificate")
	}
	leaf, pool, now := r.TLS.PeerCertificates[0], s.cfg.Keys.Authorities(), s.cfg.Now()
	if now.After(leaf.NotAfter) {
		return errors.New("the certificate has expired on this connection: connect with its successor")
	}
	t, _ := r.Context().Value(trustKey{}).(*trust)
	if t != nil && t.good(pool) {
		return nil
	}
	chain := x509.NewCertPool()
	for _, c := range r.TLS.PeerCertificates[1:] {
		chain.AddCert(c)
	}
	if pool == nil {
		return errors.New("no authorities")
	}
	if _, err := leaf.Verify(x509.VerifyOptions{Roots: pool, Intermediates: chain, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}); err != nil {
		return errors.New("the authority of the certificate is trusted no more")
	}
	if t != nil {
		t.checked.Store(pool)
	}
	return nil
}

// read takes the body, and the epoch of a write.
func (s *Server) read(rt route, c *call) (p *Problem) {
	if rt.maxBody > 0 {
		if t, _, err := mime.ParseMediaType(c.r.Header.Get("Content-Type")); err != nil || t != "application/json" {
			return problem(http.StatusUnsupportedMediaType, CauseMediaType, "want application/json")
		}
		_ = http.NewResponseController(c.w).SetReadDeadline(time.Now().Add(handshakeTimeout)) // a test's recorder has none
	}
	body, err := io.ReadAll(http.MaxBytesReader(c.w, c.r.Body, rt.maxBody))
	if tooLarge := new(http.MaxBytesError); errors.As(err, &tooLarge) {
		return problem(http.StatusRequestEntityTooLarge, CauseTooLarge, "want %d bytes or fewer", rt.maxBody)
	}
	if err != nil {
		return problem(http.StatusBadRequest, CauseFormat, "the body ends too early")
	}
	c.body = body
	if !rt.write {
		return nil
	}
	epoch, err := strconv.ParseUint(c.r.Header.Get(epochHeader), 10, 63)
	if err != nil || epoch == 0 {
		return problem(http.StatusBadRequest, CauseFormat, "%s: want a number above 0", epochHeader)
	}
	c.book, p = s.bookOf(c.peer, epoch)
	return p
}

// decode reads the body.
func (c *call) decode(v any) *Problem {
	if err := decodeStrict(c.body, v); err != nil {
		return problem(http.StatusBadRequest, CauseFormat, "%v", err)
	}
	return nil
}

func (c *call) answer(v any) *Problem {
	data, err := json.Marshal(v)
	if err != nil {
		panic("push: " + err.Error())
	}
	c.w.Header().Set("Content-Type", "application/json")
	_, _ = c.w.Write(data) // the peer has gone: it asks again
	return nil
}

func (c *call) done() *Problem {
	c.w.WriteHeader(http.StatusNoContent)
	return nil
}

// putCredential is PUT /turn-cred/v1/credentials/{tid}.
func (s *Server) putCredential(c *call) *Problem {
	var b credentialBody
	if p := c.decode(&b); p != nil {
		return p
	}
	r, err := b.record(c.r.PathValue("tid"))
	if err != nil {
		return problem(http.StatusBadRequest, CauseFormat, "%v", err)
	}
	if p := s.put(c.r.Context(), c.book, []Record{r})[0]; p != nil {
		return p
	}
	return c.done()
}

// deleteCredential is DELETE /turn-cred/v1/credentials/{tid}.
func (s *Server) deleteCredential(c *call) *Problem {
	return s.delete(c, revocationBody{Tid: c.r.PathValue("tid")})
}

// deleteSubject is DELETE /turn-cred/v1/subjects/{subject}.
func (s *Server) deleteSubject(c *call) *Problem {
	return s.delete(c, revocationBody{Subject: c.r.PathValue("subject")})
}

func (s *Server) delete(c *call, b revocationBody) *Problem {
	err := b.parseQuery(c.r.URL.RawQuery)
	var r turncred.Revocation
	if err == nil {
		r, err = b.revocation()
	}
	if err != nil {
		return problem(http.StatusBadRequest, CauseFormat, "%v", err)
	}
	if p := s.revoke(c.r.Context(), c.book, r); p != nil {
		return p
	}
	return c.done()
}

// batch is POST /turn-cred/v1/batch. Each item has a result of its own.
func (s *Server) batch(c *call) *Problem {
	var b batchBody
	if p := c.decode(&b); p != nil {
		return p
	}
	if len(b.Items) == 0 || len(b.Items) > maxItems {
		return problem(http.StatusBadRequest, CauseFormat, "items: %d, want 1 to %d", len(b.Items), maxItems)
	}
	results := make([]*Problem, len(b.Items))
	var rs []Record
	var at []int // of each of rs in results
	var vs []revocationBody
	var revoked []int // of each of vs
	for i, it := range b.Items {
		switch {
		case (it.Credential == nil) == (it.Revocation == nil):
			results[i] = problem(http.StatusBadRequest, CauseFormat, "want a credential or a revocation")
		case it.Revocation != nil:
			vs, revoked = append(vs, *it.Revocation), append(revoked, i)
		case c.peer.Role != RoleEdge:
			results[i] = problem(http.StatusForbidden, CauseForbidden, "role %s may not write credentials", c.peer.Role)
		default:
			r, err := it.Credential.record(it.Credential.Tid)
			if err != nil {
				results[i] = problem(http.StatusBadRequest, CauseFormat, "%v", err)
				continue
			}
			rs, at = append(rs, r), append(at, i)
		}
	}
	for i, p := range s.revokeBodies(c, vs) {
		results[revoked[i]] = p
	}
	for i, p := range s.put(c.r.Context(), c.book, rs) {
		results[at[i]] = p
	}
	out := batchAnswer{make([]itemResult, len(results))}
	for i, p := range results {
		out.Results[i] = itemResult{Status: http.StatusNoContent}
		if p != nil {
			out.Results[i] = itemResult{p.Status, p.Cause, p.Detail}
		}
	}
	return c.answer(out)
}

// revokeBodies takes revocations all at once, so that those who keep them sync them to disk
// together: one after the other, the edge would give up before the last one, and again the next
// time.
func (s *Server) revokeBodies(c *call, bs []revocationBody) []*Problem {
	problems := make([]*Problem, len(bs))
	var wg sync.WaitGroup
	for i, b := range bs {
		wg.Go(func() { problems[i] = s.revokeBody(c, b) })
	}
	wg.Wait()
	return problems
}

func (s *Server) revokeBody(c *call, b revocationBody) *Problem {
	r, err := b.revocation()
	if err != nil {
		return problem(http.StatusBadRequest, CauseFormat, "%v", err)
	}
	return s.revoke(c.r.Context(), c.book, r)
}

// snapshot is PUT /turn-cred/v1/snapshot. It adds what is not there and deletes nothing,
// so a part of a snapshot is one too. What was refused is refused as a whole.
func (s *Server) snapshot(c *call) *Problem {
	var b snapshotBody
	if p := c.decode(&b); p != nil {
		return p
	}
	if n := len(b.Credentials) + len(b.Revocations); n > maxItems {
		return problem(http.StatusBadRequest, CauseFormat, "%d items, want %d or fewer", n, maxItems)
	}
	if len(b.Credentials) > 0 && c.peer.Role != RoleEdge {
		return problem(http.StatusForbidden, CauseForbidden, "role %s may not write credentials", c.peer.Role)
	}
	var rs []Record
	for _, n := range b.Credentials {
		r, err := n.record(n.Tid)
		if err != nil {
			return problem(http.StatusBadRequest, CauseFormat, "credentials: %v", err)
		}
		rs = append(rs, r)
	}
	for _, p := range s.revokeBodies(c, b.Revocations) {
		if p != nil {
			return p
		}
	}
	out := snapshotAnswer{Conflicts: []string{}}
	for i, p := range s.put(c.r.Context(), c.book, rs) {
		switch {
		case p == nil:
		case p.Cause == CauseConflict:
			out.Conflicts = append(out.Conflicts, string(rs[i].Tid))
		default:
			return p
		}
	}
	return c.answer(out)
}

// digest is GET /turn-cred/v1/digest?expires_after=SECONDS.
func (s *Server) digest(c *call) *Problem {
	q := c.r.URL.Query()
	after, err := strconv.ParseInt(q.Get("expires_after"), 10, 64)
	if err != nil || len(q) != 1 || after < 0 || after > maxUntil || after%int64(period/time.Second) != 0 {
		return problem(http.StatusBadRequest, CauseFormat, "query: want expires_after, a whole minute in seconds")
	}
	return c.answer(s.state(c.peer, minute(time.Unix(after, 0))).body())
}

// aliveEvery is how long a stream of events is silent at most.
const aliveEvery = 15 * time.Second

// events is GET /turn-cred/v1/events?after=CURSOR, lines of JSON until either side ends.
func (s *Server) events(c *call) *Problem {
	q := c.r.URL.Query()
	if extra := len(q) > 1 || len(q) == 1 && !q.Has("after"); extra || len(q.Get("after")) > 64 {
		return problem(http.StatusBadRequest, CauseFormat, "query: want no parameter but after, a cursor")
	}
	// The stream ends with the certificate: its successor goes on at the cursor.
	ctx, cancel := context.WithDeadline(c.r.Context(), c.r.TLS.PeerCertificates[0].NotAfter)
	defer cancel()
	l, out := s.cfg.Events, http.NewResponseController(c.w)
	c.w.Header().Set("Content-Type", "application/x-ndjson")
	enc := json.NewEncoder(c.w)
	n, gap := l.position(q.Get("after"))
	es := []Event{l.alive(n, EventAlive)}
	for {
		if gap {
			es = append([]Event{l.alive(n, EventGap)}, es...)
		}
		_ = out.SetWriteDeadline(time.Now().Add(aliveEvery))
		for _, e := range es {
			if enc.Encode(e) != nil {
				return nil
			}
		}
		if out.Flush() != nil || ctx.Err() != nil || s.stillTrusted(c.r) != nil {
			return nil
		}
		wait, stop := context.WithTimeout(ctx, aliveEvery)
		es, n, gap = l.wait(wait, n)
		stop()
		if len(es) == 0 {
			es = []Event{l.alive(n, EventAlive)}
		}
	}
}
