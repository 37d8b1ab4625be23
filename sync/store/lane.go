package store

import "time"

// An entry is a piece of work in a lane.
type entry struct {
	work   Bulk
	answer chan struct{} // nil after Submit; has room for the one answer

	// Guarded by Writer.mu.
	claimed   bool // in the transaction under way
	withdrawn bool // its caller's context ended

	// Written by the writer while claimed; read by the caller after the
	// answer, or after withdrawing it unclaimed.
	next     int // pieces that are durable
	err      error
	finished bool
}

// finish reports the end of e to its owner.
func (e *entry) finish(err error) {
	e.work.AfterPieces(e.next, err)
	e.end(err)
}

func (e *entry) end(err error) {
	e.err, e.finished = err, true
	if e.answer != nil {
		e.answer <- struct{}{}
	}
}

// errWithdrawn ends an entry whose caller's context has ended.
const errWithdrawn = textError("withdrawn")

// A lane is a queue with what the writer has learnt about its transactions.
type lane struct {
	// Guarded by Writer.mu. The claimed entries are always the first.
	queue []*entry

	// Never changed.
	shortest, longest time.Duration // bounds of chunk
	yields            bool          // to jobs that wait

	// Owned by the goroutine that runs transactions.
	chunk  time.Duration // how long the next transaction may take
	ratio  float64       // whole time of a transaction per time spent applying
	atMost int           // pieces in the next one; 0: no limit. Set while a failure is narrowed down
}

// A span is what one transaction did for one entry.
type span struct {
	*entry
	to  int   // pieces [next, to) were applied
	err error // of piece to, which wrote nothing
}

// claim takes the entry number i of l into the transaction under way, nil if
// there is none.
func (w *Writer) claim(l *lane, i int) *entry {
	w.mu.Lock()
	defer w.mu.Unlock()
	if i >= len(l.queue) {
		return nil
	}
	e := l.queue[i]
	e.claimed = true
	if !l.yields {
		w.jobsWaiting.Add(-1)
	}
	return e
}

// withdraw takes e out of its queue, or asks the writer to do it after the
// transaction that e is in, and then returns false.
func (w *Writer) withdraw(l *lane, e *entry) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	e.withdrawn = true
	if e.claimed {
		return false
	}
	for i, q := range l.queue {
		if q == e {
			l.queue = append(l.queue[:i:i], l.queue[i+1:]...)
			if !l.yields {
				w.jobsWaiting.Add(-1)
			}
			return true
		}
	}
	return false // it has its answer
}

// transact runs one transaction for lane l and reports its outcome.
func (w *Writer) transact(l *lane) {
	var (
		limit   = limit{w: w, l: l, began: w.cfg.Now(), chunk: l.chunk}
		applied = 0             // pieces in this transaction
		failed  = (*entry)(nil) // whose piece failed after a write
		took    time.Duration   // for applying
	)
	w.spans = w.spans[:0]
	err := w.db.Update(func(tx Tx) (err error) {
		if w.cfg.Begin != nil {
			if err := w.cfg.Begin(tx); err != nil {
				return err
			}
		}
		applied, failed, err = w.apply(tx, l, &limit)
		took = w.cfg.Now().Sub(limit.began)
		switch {
		case err != nil:
			return err
		case applied == 0:
			return errIdle
		case w.cfg.Finish != nil:
			return w.cfg.Finish(tx)
		}
		return nil
	})
	if w.cfg.End != nil {
		w.cfg.End(err)
	}
	switch err {
	case nil:
		w.transactions.Add(1)
		w.applied.Add(uint64(applied))
		l.learn(took, w.cfg.Now().Sub(limit.began), l.yields && w.jobsWaiting.Load() > 0)
		w.settle()
	case errIdle:
		w.settle()
	default:
		w.aborts.Add(1)
		w.split(l, applied, failed, err)
	}
	w.release(l)
	clear(w.spans) // what is done must not stay in memory until the next transaction
}

// settle reports what the transaction did, in the order of the queue.
func (w *Writer) settle() {
	for i := range w.spans {
		w.spans[i].settle()
	}
}

// apply fills one transaction from the queue of l, and notes in w.spans what it
// did for whom. An error is that of failed's next piece, which had written.
func (w *Writer) apply(tx Tx, l *lane, limit *limit) (applied int, failed *entry, err error) {
	for !limit.reached(applied) {
		e := w.claim(l, len(w.spans))
		if e == nil {
			break
		}
		w.spans = append(w.spans, span{entry: e, to: e.next})
		s := &w.spans[len(w.spans)-1]
		for n := e.work.Pieces(); s.to < n && s.err == nil && !limit.reached(applied); {
			mark := tx.Writes()
			if s.err = e.work.ApplyPiece(tx, s.to); s.err == nil {
				s.to++
				applied++
			} else if tx.Writes() != mark {
				return applied, e, s.err
			}
		}
	}
	return applied, nil, nil
}

// settle reports what a committed transaction did for s.
func (s *span) settle() {
	progress := s.to > s.next
	s.next = s.to
	if s.err != nil || s.next == s.work.Pieces() {
		s.finish(s.err)
	} else if progress {
		s.work.AfterPieces(s.next, nil)
	}
}

// split decides what follows a transaction that failed with err after applied
// pieces, none of which happened. failed is whose piece failed after writing,
// nil if none did.
func (w *Writer) split(l *lane, applied int, failed *entry, err error) {
	switch {
	case failed != nil && applied > 0:
		l.atMost = applied // those before it, then it alone
	case failed == nil && applied > 1:
		l.atMost = applied / 2
	default: // it was alone, or nothing can be applied at all
		if failed == nil {
			failed = w.alone(l)
		}
		for i := range w.spans { // those before it were judged with nothing of this transaction in the way
			if w.spans[i].entry == failed {
				break
			}
			w.spans[i].settle()
		}
		if failed != nil {
			failed.finish(err)
		}
	}
}

// alone is whom a failed transaction of at most one piece was for.
func (w *Writer) alone(l *lane) *entry {
	for _, s := range w.spans {
		if s.to > s.next {
			return s.entry
		}
	}
	return w.claim(l, len(w.spans))
}

// release takes what is finished, or no longer wanted, out of the queue and
// makes the rest wait again.
func (w *Writer) release(l *lane) {
	w.mu.Lock()
	defer w.mu.Unlock()
	kept := l.queue[:0]
	for _, e := range l.queue {
		if e.claimed {
			e.claimed = false
			if e.withdrawn && !e.finished {
				e.end(errWithdrawn)
			}
			if e.finished {
				continue
			}
			if !l.yields {
				w.jobsWaiting.Add(1)
			}
		}
		kept = append(kept, e)
	}
	clear(l.queue[len(kept):])
	l.queue = kept
}

// learn adapts the lane to a transaction that spent took applying and whole
// altogether.
func (l *lane) learn(took, whole time.Duration, jobWaits bool) {
	if took >= time.Millisecond { // below, the fixed cost of a sync says nothing about the work
		l.ratio = (l.ratio + min(max(float64(whole)/float64(took), 1), 16)) / 2
	}
	switch {
	case jobWaits:
		l.chunk = l.shortest
	case whole >= l.chunk/2:
		l.chunk = min(2*l.chunk, l.longest)
	}
	if l.atMost *= 2; l.atMost > 1<<20 {
		l.atMost = 0
	}
}

// A limit says when a transaction has enough.
type limit struct {
	w     *Writer
	l     *lane
	began time.Time
	chunk time.Duration // how long it may take
	short bool          // chunk was cut because a job waits
	look  int           // pieces at which to look at the clock again
	step  int
}

// reached reports whether a transaction that has applied pieces should be
// committed. It looks at the clock when a job begins to wait and every 16
// pieces, at first more often.
func (m *limit) reached(applied int) bool {
	switch {
	case applied == 0:
		return false
	case applied >= m.w.cfg.MaxPieces, m.l.atMost > 0 && applied >= m.l.atMost:
		return true
	case m.l.yields && !m.short && m.w.jobsWaiting.Load() > 0:
		m.short, m.look = true, applied
		m.chunk = min(m.chunk, m.l.shortest)
	}
	if applied < m.look {
		return false
	}
	spent := float64(m.w.cfg.Now().Sub(m.began))
	left := float64(m.chunk)/m.l.ratio - spent
	if left <= 0 {
		return true
	}
	m.step = min(2*m.step+1, 16)
	m.look = applied + m.step
	if each := spent / float64(applied); each > 0 {
		m.look = applied + max(1, int(min(float64(m.step), left/each)))
	}
	return false
}
