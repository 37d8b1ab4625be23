package replica

import (
	"bufio"
	"context"
	"errors"
	"io"
	"sync"
	"time"
)

// A Conn is one ordered, reliable byte stream to the peer. Close ends reads and
// writes under way, and may be called more than once.
type Conn interface {
	io.Reader
	io.Writer
	io.Closer
}

// A Link runs a Session over a Conn. It is used once.
type Link struct {
	// Set by NewLink, never changed.
	session *Session
	conn    Conn

	// wake has room for one: a full channel already says "look again".
	wake  chan struct{}
	ready chan struct{} // the same for the reader
}

// NewLink prepares a session over conn; Run runs it. cfg.Changed is the link's
// own.
func NewLink(cfg Config, conn Conn) *Link {
	l := &Link{conn: conn, wake: make(chan struct{}, 1), ready: make(chan struct{}, 1)}
	cfg.Changed = l.changed
	l.session = New(cfg)
	return l
}

// Status says how far the session is.
func (l *Link) Status() Status { return l.session.Status() }

func (l *Link) changed() {
	nudge(l.wake)
	nudge(l.ready)
}

func nudge(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// farewell is how long a Bye may take to leave.
const farewell = 2 * time.Second

// Run keeps the group in step with the peer until ctx ends, the connection dies
// or a side breaks the protocol. It closes conn, and every goroutine it started
// has ended when it returns. The error says why it ended: ctx's, the
// connection's, a *ByeError of the peer, or a fault of our own judgement.
func (l *Link) Run(ctx context.Context) error {
	life, end := context.WithCancel(ctx)
	defer end()
	stop := context.AfterFunc(life, func() { l.conn.Close() })
	defer stop()
	news, unsubscribe := l.session.g.Subscribe()
	defer unsubscribe()

	var wg sync.WaitGroup
	wg.Go(func() { l.relay(life, news) })
	wg.Go(func() {
		l.session.end(l.send(life))
		end()
	})
	l.session.end(l.receive(life))
	nudge(l.wake) // the sender says why, and ends the link
	timer := time.AfterFunc(farewell, end)
	<-life.Done()
	timer.Stop()
	wg.Wait()
	l.conn.Close()
	if err := ctx.Err(); err != nil {
		return err
	}
	return l.session.Err()
}

// relay wakes the sender when the database has something to say.
func (l *Link) relay(ctx context.Context, news <-chan struct{}) {
	for {
		select {
		case <-news:
			nudge(l.wake)
		case <-ctx.Done():
			return
		}
	}
}

// pipeline is how many frames may be looked at ahead of the one that the
// session takes next: runs are verified on more than one core.
const pipeline = 3

// receive reads frames and gives them to the session in order, until the
// connection or the session ends.
func (l *Link) receive(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	queue := make(chan chan Incoming, pipeline-1)
	wg.Go(func() {
		if err := l.accept(ctx, queue); err != nil {
			cancel(err)
			nudge(l.wake) // the sender says Bye and closes the connection, which unblocks the read below
			time.AfterFunc(farewell, func() { l.conn.Close() })
		}
	})
	defer close(queue)
	r := bufio.NewReaderSize(l.conn, 64<<10)
	for {
		frame, err := ReadFrame(r, nil)
		if err != nil {
			if cause := context.Cause(ctx); cause != nil {
				return cause
			}
			return err
		}
		next := make(chan Incoming, 1)
		select {
		case queue <- next:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		if Type(frame[0]) == TypeRun {
			wg.Go(func() { next <- l.session.Prepare(frame) })
		} else {
			next <- l.session.Prepare(frame)
		}
	}
}

// accept gives frames to the session when it is ready for them.
func (l *Link) accept(ctx context.Context, queue <-chan chan Incoming) error {
	for next := range queue {
		for !l.session.Ready() {
			select {
			case <-l.ready:
			case <-ctx.Done():
				return nil
			}
		}
		if err := l.session.Accept(<-next); err != nil {
			return err
		}
		nudge(l.wake)
	}
	return nil
}

func (l *Link) send(ctx context.Context) error {
	w := bufio.NewWriterSize(l.conn, 64<<10)
	var buf []byte
	for {
		frame, ok, err := l.session.Next(buf)
		if err != nil {
			return errors.Join(err, w.Flush())
		}
		if ok {
			buf = frame
			if _, err := w.Write(frame); err != nil {
				return err
			}
			continue
		}
		if err := w.Flush(); err != nil {
			return err
		}
		select {
		case <-l.wake:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
