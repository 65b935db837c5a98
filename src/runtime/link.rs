//! One QUIC connection to one peer: streams in and out, and one end.
//!
//! A link has one bidirectional control stream (the dialler opens it), one long log stream each
//! way, short ones for express frames, and datagrams for beats. A supervisor ([`Link::run`]) owns
//! the tasks that read and write them and reports the end; [`LinkHandle`] is what the driver keeps.
//!
//! # Invariants
//! * After the supervisor has reported [`Input::LinkDown`] none of its tasks is left to report
//!   anything else.
//! * Inbound bytes are read only when the driver took the ones before: a slow driver closes the
//!   peer's windows, it does not fill this process' memory.
//! * Outbound queues are bounded; one that overflows ends the link with [`CloseCode::Overloaded`](crate::node::CloseCode::Overloaded),
//!   and the peer resumes from its hello. The node hands out log bytes against [`Input::Drained`],
//!   so this happens only when it does not.
//! * What the peer sent before it closed is delivered before the end is.
//!
//! What is *not* here: bidirectional streams beside the control stream. A second one is a fault
//! until a version agrees on it.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use quinn::{Connection, ConnectionError, ReadError, RecvStream, SendStream, StoppedError, WriteError};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;

use crate::node::{Input, LinkEnd, LinkId};
use crate::runtime::closing::{Closing, end_of, varint};
use crate::runtime::congestion::{SendWindow, WINDOW_EVERY};
use crate::runtime::framing::{CONTROL_BYTES_MAX, LOG_BYTES_MAX, OverLimit, Splitter, prefix};

/// Control messages waiting for one link. There are a few per second; a peer that leaves so many
/// unread for so long is better reached over a new link.
pub(crate) const CONTROL_QUEUE: usize = 256;

/// Log frames waiting for one link. The node's byte budget binds first unless frames are tiny.
pub(crate) const LOG_QUEUE: usize = 4_096;

/// Frames written before the node is told; more would leave its outbox idle for too long.
pub(crate) const WRITE_BATCH: usize = 16;

/// Chunks taken from QUIC at once: about 90 KB, one lock instead of 64.
const READ_BATCH: usize = 64;

/// Express streams a goodbye waits for: as many as a peer lets be open. Older ones have long been
/// acknowledged.
pub(crate) const EXPRESS_WATCHED: usize = 256;

/// How long a goodbye waits for the peer to acknowledge what was sent. A peer that is cut off costs
/// this much at shutdown.
pub(crate) const FLUSH: Duration = Duration::from_secs(2);

/// Priorities within one connection: control before express frames before the log.
pub(crate) const CONTROL_PRIORITY: i32 = 20;
pub(crate) const EXPRESS_PRIORITY: i32 = 15;
pub(crate) const LOG_PRIORITY: i32 = 10;

/// What the driver keeps of a link. Dropping it says goodbye.
#[derive(Debug)]
pub(crate) struct LinkHandle {
    connection: Connection,
    control: mpsc::Sender<Bytes>,
    log: mpsc::Sender<LogFrame>,
    close: oneshot::Sender<Closing>,
}

/// The queue to a link is full or the link is ending. What was to be sent is dropped.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum NotQueued {
    Full,
    Ending,
}

impl<T> From<mpsc::error::TrySendError<T>> for NotQueued {
    fn from(error: mpsc::error::TrySendError<T>) -> Self {
        match error {
            mpsc::error::TrySendError::Full(_) => Self::Full,
            mpsc::error::TrySendError::Closed(_) => Self::Ending,
        }
    }
}

impl LinkHandle {
    /// Queues a message for the control stream.
    pub(crate) fn control(&self, bytes: Bytes) -> Result<(), NotQueued> {
        Ok(self.control.try_send(bytes)?)
    }

    /// Queues a frame for a log stream.
    pub(crate) fn log(&self, bytes: Bytes, express: bool) -> Result<(), NotQueued> {
        Ok(self.log.try_send(LogFrame { bytes, express })?)
    }

    /// Sends a datagram, or loses it: the oldest waiting one goes when QUIC's buffer is full.
    pub(crate) fn beat(&self, bytes: Bytes) {
        if let Err(error) = self.connection.send_datagram(bytes) {
            tracing::debug!(%error, "a beat was not sent");
        }
    }

    /// Ends the link.
    pub(crate) fn close(self, closing: Closing) {
        // A link that has just ended by itself has dropped its receiver and needs no second end.
        drop(self.close.send(closing));
    }
}

#[derive(Debug)]
struct LogFrame {
    bytes: Bytes,
    express: bool,
}

/// Why a task of a link stopped early.
#[derive(Debug)]
enum Stop {
    /// The connection is gone; it knows why itself.
    Lost,
    /// The peer broke the protocol.
    Fault(Closing),
}

impl From<ConnectionError> for Stop {
    fn from(_: ConnectionError) -> Self {
        Self::Lost
    }
}

impl From<ReadError> for Stop {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::ConnectionLost(_) | ReadError::ClosedStream => Self::Lost,
            ReadError::Reset(_) => Self::Fault(Closing::reset()),
            ReadError::IllegalOrderedRead | ReadError::ZeroRttRejected => {
                Self::Fault(Closing::malformed("a stream is unreadable"))
            }
        }
    }
}

impl From<WriteError> for Stop {
    fn from(error: WriteError) -> Self {
        match error {
            WriteError::ConnectionLost(_) | WriteError::ClosedStream => Self::Lost,
            WriteError::Stopped(_) | WriteError::ZeroRttRejected => Self::Fault(Closing::stopped()),
        }
    }
}

impl From<StoppedError> for Stop {
    fn from(_: StoppedError) -> Self {
        Self::Lost
    }
}

impl From<OverLimit> for Stop {
    fn from(over: OverLimit) -> Self {
        Self::Fault(over.into())
    }
}

/// The driver does not listen any more, so the process is stopping.
impl From<mpsc::error::SendError<Input>> for Stop {
    fn from(_: mpsc::error::SendError<Input>) -> Self {
        Self::Lost
    }
}

/// Where a link's inputs go: the driver's queue, by whatever type it carries.
pub(crate) trait Inbox: Clone + Send + Sync + 'static {
    /// Waits for room and puts an input there.
    fn put(&self, input: Input) -> impl Future<Output = Result<(), mpsc::error::SendError<Input>>> + Send;
}

/// One connection and the ends of the queues its handle feeds.
#[derive(Debug)]
pub(crate) struct Link<I> {
    id: LinkId,
    connection: Connection,
    dialled: bool,
    inbox: I,
    control: mpsc::Receiver<Bytes>,
    log: mpsc::Receiver<LogFrame>,
    close: oneshot::Receiver<Closing>,
}

impl<I: Inbox> Link<I> {
    /// Makes a link of a connection whose peer has proved who it is. Nothing happens on it before
    /// [`Link::run`].
    pub(crate) fn new(id: LinkId, connection: Connection, dialled: bool, inbox: I) -> (LinkHandle, Self) {
        let (control_in, control) = mpsc::channel(CONTROL_QUEUE);
        let (log_in, log) = mpsc::channel(LOG_QUEUE);
        let (close_in, close) = oneshot::channel();
        let handle = LinkHandle { connection: connection.clone(), control: control_in, log: log_in, close: close_in };
        (handle, Self { id, connection, dialled, inbox, control, log, close })
    }

    /// Runs the link to its end and reports it.
    ///
    /// # Cancel safety
    /// Dropping the future drops the connection at once and reports nothing.
    pub(crate) async fn run(self) {
        let Self { id, connection, dialled, inbox, control, log, mut close } = self;
        let (opened, on_opened) = oneshot::channel();
        let mut readers = JoinSet::new();
        readers.spawn(read_control(connection.clone(), dialled, opened, Reader { id, inbox: inbox.clone() }));
        readers.spawn(read_logs(connection.clone(), Reader { id, inbox: inbox.clone() }));
        readers.spawn(read_beats(connection.clone(), Reader { id, inbox: inbox.clone() }));
        let mut writers = JoinSet::new();
        writers.spawn(write_control(on_opened, control));
        writers.spawn(write_log(connection.clone(), log, Reader { id, inbox: inbox.clone() }));

        let mut window = SendWindow::new();
        let mut tick = tokio::time::interval(WINDOW_EVERY);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let closing = loop {
            tokio::select! {
                error = connection.closed() => break Err(error),
                closing = &mut close => break Ok(closing.unwrap_or_else(|_| Closing::goodbye())),
                Some(done) = readers.join_next() => if let Some(fault) = fault_of(done) { break Ok(fault) },
                Some(done) = writers.join_next() => if let Some(fault) = fault_of(done) { break Ok(fault) },
                _ = tick.tick() => {
                    let path = connection.stats().path;
                    connection.set_send_window(window.follow(path.rtt, connection.min_rtt(), path.cwnd));
                }
            }
        };
        let reason = match closing {
            Err(error) => {
                writers.shutdown().await;
                // The readers hand over what has arrived and then find the connection gone.
                while readers.join_next().await.is_some() {}
                end_of(error)
            }
            Ok(closing) => {
                if closing.code.flushes() {
                    flush(&mut writers).await;
                }
                connection.close(varint(closing.code), closing.reason.as_bytes());
                readers.shutdown().await;
                writers.shutdown().await;
                LinkEnd::Local { code: closing.code, reason: closing.reason }
            }
        };
        if inbox.put(Input::LinkDown { link: id, reason }).await.is_err() {
            tracing::debug!(link = id.0, "a link ended after its driver");
        }
    }
}

/// Lets the writers finish what was queued, which they do by themselves because the handle is gone. The readers go on
/// meanwhile: a reader that ends tells the peer to stop, and a peer that was told so while it writes ends the link
/// before it has read the rest.
async fn flush(writers: &mut JoinSet<Result<(), Stop>>) {
    let flushed = tokio::time::timeout(FLUSH, async { while writers.join_next().await.is_some() {} });
    if flushed.await.is_err() {
        tracing::debug!("a goodbye was not acknowledged in time");
    }
}

/// Returns what a finished task found wrong with the peer.
fn fault_of(done: Result<Result<(), Stop>, tokio::task::JoinError>) -> Option<Closing> {
    match done {
        Ok(Ok(()) | Err(Stop::Lost)) => None,
        Ok(Err(Stop::Fault(closing))) => Some(closing),
        Err(error) => {
            tracing::error!(%error, "a task of a link failed");
            Some(Closing::malformed("internal error"))
        }
    }
}

/// Which link an input is of, and where it goes.
#[derive(Clone, Debug)]
struct Reader<I> {
    id: LinkId,
    inbox: I,
}

impl<I: Inbox> Reader<I> {
    /// Reads a stream of frames to its end.
    async fn frames(&self, mut stream: RecvStream, max: usize, wrap: fn(LinkId, Bytes) -> Input) -> Result<(), Stop> {
        let mut splitter = Splitter::new(max);
        let mut chunks: [Bytes; READ_BATCH] = std::array::from_fn(|_| Bytes::new());
        while let Some(filled) = stream.read_chunks(&mut chunks).await? {
            for chunk in chunks.iter_mut().take(filled) {
                splitter.push(&std::mem::take(chunk));
            }
            while let Some(bytes) = splitter.pull()? {
                self.inbox.put(wrap(self.id, bytes)).await?;
            }
        }
        if splitter.is_between_frames() { Ok(()) } else { Err(Stop::Fault(Closing::torn())) }
    }
}

/// Opens or awaits the control stream, gives its sending half away and reads the other.
async fn read_control<I: Inbox>(
    connection: Connection,
    dialled: bool,
    opened: oneshot::Sender<SendStream>,
    reader: Reader<I>,
) -> Result<(), Stop> {
    let (send, recv) = if dialled { connection.open_bi().await? } else { connection.accept_bi().await? };
    if opened.send(send).is_err() {
        return Err(Stop::Lost);
    }
    let second = || Stop::Fault(Closing::second_stream());
    tokio::select! {
        done = reader.frames(recv, CONTROL_BYTES_MAX, |link, bytes| Input::Control { link, bytes }) => done?,
        // A lost connection does not end this: what it left behind is still read above.
        Ok(_) = connection.accept_bi() => return Err(second()),
    }
    // The peer has said its last on this stream, and may open no other.
    connection.accept_bi().await?;
    Err(second())
}

/// Reads every log stream the peer opens: its long one and its express ones. QUIC's stream limit
/// bounds how many there are.
async fn read_logs<I: Inbox>(connection: Connection, reader: Reader<I>) -> Result<(), Stop> {
    let mut streams = JoinSet::new();
    loop {
        tokio::select! {
            stream = connection.accept_uni() => {
                let Ok(stream) = stream else { break };
                let reader = reader.clone();
                streams.spawn(async move {
                    reader.frames(stream, LOG_BYTES_MAX, |link, bytes| Input::Log { link, bytes }).await
                });
            }
            Some(done) = streams.join_next() => {
                if let Some(fault) = fault_of(done) { return Err(Stop::Fault(fault)) }
            }
        }
    }
    while streams.join_next().await.is_some() {}
    Err(Stop::Lost)
}

async fn read_beats<I: Inbox>(connection: Connection, reader: Reader<I>) -> Result<(), Stop> {
    loop {
        let bytes = connection.read_datagram().await?;
        reader.inbox.put(Input::Beat { link: reader.id, bytes }).await?;
    }
}

async fn write_control(opened: oneshot::Receiver<SendStream>, mut queue: mpsc::Receiver<Bytes>) -> Result<(), Stop> {
    let Ok(mut stream) = opened.await else {
        return Err(Stop::Lost);
    };
    raise(&stream, CONTROL_PRIORITY);
    while let Some(bytes) = queue.recv().await {
        write_frame(&mut stream, bytes).await?;
    }
    finish(stream).await
}

async fn write_log<I: Inbox>(
    connection: Connection,
    mut queue: mpsc::Receiver<LogFrame>,
    reader: Reader<I>,
) -> Result<(), Stop> {
    let mut stream = connection.open_uni().await?;
    raise(&stream, LOG_PRIORITY);
    let mut express = VecDeque::with_capacity(EXPRESS_WATCHED);
    let mut batch = Vec::with_capacity(WRITE_BATCH);
    while queue.recv_many(&mut batch, WRITE_BATCH).await > 0 {
        let bytes = batch.iter().map(|frame| frame.bytes.len()).sum();
        for frame in batch.drain(..) {
            let short = if frame.express { free_stream(&connection).await? } else { None };
            let Some(mut short) = short else {
                write_frame(&mut stream, frame.bytes).await?;
                continue;
            };
            raise(&short, EXPRESS_PRIORITY);
            write_frame(&mut short, frame.bytes).await?;
            // A stream that was finished before is not finished again, and a lost one needs none.
            drop(short.finish());
            if express.len() == EXPRESS_WATCHED {
                express.pop_front();
            }
            express.push_back(short);
        }
        reader.inbox.put(Input::Drained { link: reader.id, bytes }).await?;
    }
    for short in express {
        short.stopped().await?;
    }
    finish(stream).await
}

/// Returns a new short stream if the peer has credit for one now; waits for nothing.
async fn free_stream(connection: &Connection) -> Result<Option<SendStream>, Stop> {
    let mut open = pin!(connection.open_uni());
    let now = std::future::poll_fn(|cx| match open.as_mut().poll(cx) {
        Poll::Ready(stream) => Poll::Ready(Some(stream)),
        Poll::Pending => Poll::Ready(None),
    });
    Ok(now.await.transpose()?)
}

async fn write_frame(stream: &mut SendStream, bytes: Bytes) -> Result<(), Stop> {
    stream.write_all_chunks(&mut [prefix(&bytes), bytes]).await?;
    Ok(())
}

/// Ends a stream and waits until the peer has acknowledged all of it.
async fn finish(mut stream: SendStream) -> Result<(), Stop> {
    if stream.finish().is_err() {
        return Err(Stop::Lost);
    }
    stream.stopped().await?;
    Ok(())
}

/// Sets a stream's priority. A stream that is gone already says so at the next write.
fn raise(stream: &SendStream, priority: i32) {
    drop(stream.set_priority(priority));
}
