//! The streams of one link: what the shell's tasks do with a connection, as one state machine.
//!
//! The limits, priorities, framing and reasons are the shell's own. Its tasks wait for each other only where they share
//! a queue, so which of several streams with something to read is read first is drawn.
//!
//! # Invariants
//! * What arrived is read at once: the node is never busy here, so its queue of inputs never fills.
//! * A frame is handed out whole and once, as the shell's reader does.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Instant;

use bytes::Bytes;
use quinn_proto::{Connection, Dir, ReadError, ReadableError, StreamEvent, StreamId, WriteError};

use crate::node::{Input, LinkId};
use crate::runtime::closing::Closing;
use crate::runtime::congestion::{SendWindow, WINDOW_EVERY};
use crate::runtime::framing::{CONTROL_BYTES_MAX, LOG_BYTES_MAX, Splitter, prefix};
use crate::runtime::link::{
    CONTROL_PRIORITY, CONTROL_QUEUE, EXPRESS_PRIORITY, EXPRESS_WATCHED, FLUSH, LOG_PRIORITY, LOG_QUEUE, WRITE_BATCH,
};

/// One link.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) id: LinkId,
    dialled: bool,
    control: Writer,
    control_queue: VecDeque<Bytes>,
    log: Writer,
    log_queue: VecDeque<LogFrame>,
    /// What was taken out of the log's queue in one go, and is not written yet.
    batch: VecDeque<LogFrame>,
    batch_bytes: usize,
    /// A short stream whose frame is not written yet.
    short: Option<Writer>,
    /// Short streams that are not acknowledged, the youngest ones.
    express: BTreeSet<StreamId>,
    readers: BTreeMap<StreamId, Splitter>,
    readable: BTreeSet<StreamId>,
    window: SendWindow,
    window_at: Instant,
    /// A writer waits for room.
    blocked: bool,
    /// A goodbye waits until everything is acknowledged, at most until then.
    goodbye: Option<(Closing, Instant)>,
}

#[derive(Debug)]
struct LogFrame {
    bytes: Bytes,
    express: bool,
}

/// The sending half of a stream.
#[derive(Debug, Default)]
struct Writer {
    stream: Option<StreamId>,
    /// What is left of the frame that is being written.
    left: Vec<Bytes>,
    finished: bool,
    /// Nothing more is to be waited for.
    done: bool,
}

/// How far a write came.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Written {
    All,
    Blocked,
}

impl Writer {
    fn begin(&mut self, frame: Bytes) {
        self.left = vec![prefix(&frame), frame];
    }

    /// Writes what is left as far as QUIC takes it.
    fn write(&mut self, quic: &mut Connection) -> Result<Written, Closing> {
        let Some(stream) = self.stream.filter(|_| !self.done) else { return Ok(Written::Blocked) };
        while !self.left.is_empty() {
            match quic.send_stream(stream).write_chunks(&mut self.left) {
                Ok(written) => drop(self.left.drain(..written.chunks.min(self.left.len()))),
                Err(WriteError::Blocked) => return Ok(Written::Blocked),
                Err(WriteError::Stopped(_)) => {
                    self.done = true;
                    return Err(Closing::stopped());
                }
                Err(WriteError::ClosedStream) => {
                    self.done = true;
                    return Ok(Written::Blocked);
                }
            }
        }
        Ok(Written::All)
    }

    /// Ends the stream once.
    fn finish(&mut self, quic: &mut Connection) {
        let Some(stream) = self.stream else {
            self.done = true;
            return;
        };
        if !std::mem::replace(&mut self.finished, true) {
            self.done |= quic.send_stream(stream).finish().is_err();
        }
    }

    fn on_acknowledged(&mut self, id: StreamId) {
        self.done |= self.finished && self.stream == Some(id);
    }
}

impl Link {
    pub(super) fn new(id: LinkId, dialled: bool, now: Instant) -> Self {
        Self {
            id,
            dialled,
            control: Writer::default(),
            control_queue: VecDeque::new(),
            log: Writer::default(),
            log_queue: VecDeque::new(),
            batch: VecDeque::new(),
            batch_bytes: 0,
            short: None,
            express: BTreeSet::new(),
            readers: BTreeMap::new(),
            readable: BTreeSet::new(),
            window: SendWindow::new(),
            window_at: now,
            blocked: false,
            goodbye: None,
        }
    }

    /// Queues a message for the control stream.
    pub(super) fn control(&mut self, bytes: Bytes) -> Result<(), Closing> {
        if self.control_queue.len() >= CONTROL_QUEUE {
            return Err(Closing::overloaded());
        }
        self.control_queue.push_back(bytes);
        Ok(())
    }

    /// Queues a frame for a log stream.
    pub(super) fn log(&mut self, bytes: Bytes, express: bool) -> Result<(), Closing> {
        if self.log_queue.len() >= LOG_QUEUE {
            return Err(Closing::overloaded());
        }
        self.log_queue.push_back(LogFrame { bytes, express });
        Ok(())
    }

    /// Adjusts the send window as often as the shell's ticks would have.
    pub(super) fn follow_delay(&mut self, now: Instant, quic: &mut Connection) {
        while self.window_at <= now {
            let congestion_window = quic.congestion_state().window();
            quic.set_send_window(self.window.follow(quic.rtt(), quic.min_rtt(), congestion_window));
            self.window_at += WINDOW_EVERY;
        }
    }

    /// Returns when this link needs attention though nothing arrives.
    pub(super) fn next_at(&self) -> Option<Instant> {
        let window = self.blocked.then_some(self.window_at);
        window.into_iter().chain(self.goodbye.as_ref().map(|(_, until)| *until)).min()
    }

    pub(super) fn on_event(&mut self, event: StreamEvent) {
        match event {
            StreamEvent::Readable { id } => {
                self.readable.insert(id);
            }
            StreamEvent::Finished { id } | StreamEvent::Stopped { id, .. } => {
                self.express.remove(&id);
                self.control.on_acknowledged(id);
                self.log.on_acknowledged(id);
            }
            // What these announce is looked for every time.
            StreamEvent::Opened { .. } | StreamEvent::Writable { .. } | StreamEvent::Available { .. } => {}
        }
    }

    /// Begins a goodbye: what was queued is flushed for as long as it may take.
    pub(super) fn flush(&mut self, now: Instant, closing: Closing) {
        self.goodbye = Some((closing, now + FLUSH));
    }

    /// Tells whether a goodbye is waiting.
    pub(super) fn is_flushing(&self) -> bool {
        self.goodbye.is_some()
    }

    /// Returns the goodbye that has waited enough.
    pub(super) fn flushed(&mut self, now: Instant) -> Option<Closing> {
        let done = self.control.done && self.log.done;
        self.goodbye.as_ref().filter(|(_, until)| done || *until <= now).map(|(closing, _)| closing.clone())
    }

    /// Returns the goodbye that needs to wait no more because the connection is gone.
    pub(super) fn ends_flushing(&mut self) -> Option<Closing> {
        self.goodbye.take().map(|(closing, _)| closing)
    }

    /// Reads what arrived and writes what is queued. A fault of the peer ends the link, unless it is ending already.
    pub(super) fn work(
        &mut self,
        quic: &mut Connection,
        rng: &mut fastrand::Rng,
        told: &mut VecDeque<Input>,
    ) -> Result<(), Closing> {
        self.blocked = false;
        if self.goodbye.is_none() {
            self.read(quic, rng, told)?;
            self.write_control(quic)?;
            return self.write_log(quic, told);
        }
        // Nobody is told of a fault any more, and a writer that fails has nothing left to wait for.
        drop(self.read(quic, rng, told));
        self.control.done |= self.write_control(quic).is_err();
        self.log.done |= self.write_log(quic, told).is_err();
        Ok(())
    }

    /// Reads everything that has arrived.
    pub(super) fn read(
        &mut self,
        quic: &mut Connection,
        rng: &mut fastrand::Rng,
        told: &mut VecDeque<Input>,
    ) -> Result<(), Closing> {
        while let Some(stream) = quic.streams().accept(Dir::Bi) {
            if self.dialled || self.control.stream.is_some() {
                return Err(Closing::second_stream());
            }
            self.adopt_control(quic, stream);
        }
        while let Some(stream) = quic.streams().accept(Dir::Uni) {
            self.readers.insert(stream, Splitter::new(LOG_BYTES_MAX));
            self.readable.insert(stream);
        }
        let mut readable: Vec<Option<StreamId>> = std::mem::take(&mut self.readable).into_iter().map(Some).collect();
        // Datagrams are read by a task of their own, too.
        readable.push(None);
        rng.shuffle(&mut readable);
        for stream in readable {
            match stream {
                Some(stream) => self.read_stream(quic, stream, told)?,
                None => {
                    let beats = std::iter::from_fn(|| quic.datagrams().recv());
                    told.extend(beats.map(|bytes| Input::Beat { link: self.id, bytes }));
                }
            }
        }
        Ok(())
    }

    fn adopt_control(&mut self, quic: &mut Connection, stream: StreamId) {
        self.control.stream = Some(stream);
        raise(quic, stream, CONTROL_PRIORITY);
        self.readers.insert(stream, Splitter::new(CONTROL_BYTES_MAX));
        self.readable.insert(stream);
    }

    fn read_stream(
        &mut self,
        quic: &mut Connection,
        stream: StreamId,
        told: &mut VecDeque<Input>,
    ) -> Result<(), Closing> {
        let Some(splitter) = self.readers.get_mut(&stream) else { return Ok(()) };
        let mut recv = quic.recv_stream(stream);
        let mut chunks = match recv.read(true) {
            Ok(chunks) => chunks,
            Err(ReadableError::ClosedStream) => {
                self.readers.remove(&stream);
                return Ok(());
            }
            Err(ReadableError::IllegalOrderedRead) => return Err(Closing::malformed("a stream is unreadable")),
        };
        let end = loop {
            match chunks.next(usize::MAX) {
                Ok(Some(chunk)) => splitter.push(&chunk.bytes),
                Ok(None) => break Some(Ok(())),
                Err(ReadError::Blocked) => break None,
                Err(ReadError::Reset(_)) => break Some(Err(Closing::reset())),
            }
        };
        // Whether credit is to be sent back is asked of the connection as a whole.
        chunks.finalize().should_transmit();
        let link = self.id;
        while let Some(bytes) = splitter.pull()? {
            told.push_back(match stream.dir() {
                Dir::Bi => Input::Control { link, bytes },
                Dir::Uni => Input::Log { link, bytes },
            });
        }
        match end {
            None => return Ok(()),
            Some(Ok(())) if !splitter.is_between_frames() => return Err(Closing::torn()),
            Some(end) => end?,
        }
        self.readers.remove(&stream);
        Ok(())
    }

    fn write_control(&mut self, quic: &mut Connection) -> Result<(), Closing> {
        if self.control.stream.is_none()
            && self.dialled
            && let Some(stream) = quic.streams().open(Dir::Bi)
        {
            self.adopt_control(quic, stream);
        }
        if self.control.stream.is_some() {
            loop {
                if self.control.write(quic)? == Written::Blocked {
                    self.blocked = true;
                    return Ok(());
                }
                let Some(frame) = self.control_queue.pop_front() else { break };
                self.control.begin(frame);
            }
        }
        if self.goodbye.is_some() {
            self.control.finish(quic);
        }
        Ok(())
    }

    fn write_log(&mut self, quic: &mut Connection, told: &mut VecDeque<Input>) -> Result<(), Closing> {
        if self.log.stream.is_none() {
            let Some(stream) = quic.streams().open(Dir::Uni) else { return Ok(()) };
            raise(quic, stream, LOG_PRIORITY);
            self.log.stream = Some(stream);
        }
        loop {
            if self.write_begun(quic)? == Written::Blocked {
                self.blocked = true;
                return Ok(());
            }
            if let Some(frame) = self.batch.pop_front() {
                self.begin_log(quic, frame);
                continue;
            }
            if self.batch_bytes > 0 {
                let bytes = std::mem::take(&mut self.batch_bytes);
                told.push_back(Input::Drained { link: self.id, bytes });
            }
            if self.log_queue.is_empty() {
                break;
            }
            self.batch = self.log_queue.drain(..WRITE_BATCH.min(self.log_queue.len())).collect();
            self.batch_bytes = self.batch.iter().map(|frame| frame.bytes.len()).sum();
        }
        if self.goodbye.is_some() && self.express.is_empty() {
            self.log.finish(quic);
        }
        Ok(())
    }

    /// Writes on at the frame that was begun, wherever it goes.
    fn write_begun(&mut self, quic: &mut Connection) -> Result<Written, Closing> {
        let Some(short) = self.short.as_mut() else { return self.log.write(quic) };
        if short.write(quic)? == Written::All
            && let Some(mut short) = self.short.take()
        {
            short.finish(quic);
            if self.express.len() == EXPRESS_WATCHED {
                self.express.pop_first();
            }
            self.express.extend(short.stream.filter(|_| !short.done));
            return self.log.write(quic);
        }
        Ok(Written::Blocked)
    }

    /// Begins a frame: on a stream of its own if it is express and the peer has credit for one now.
    fn begin_log(&mut self, quic: &mut Connection, frame: LogFrame) {
        let own = if frame.express { quic.streams().open(Dir::Uni) } else { None };
        match own {
            Some(stream) => {
                raise(quic, stream, EXPRESS_PRIORITY);
                let mut short = Writer { stream: Some(stream), ..Writer::default() };
                short.begin(frame.bytes);
                self.short = Some(short);
            }
            None => self.log.begin(frame.bytes),
        }
    }
}

/// Sets a stream's priority. A stream that is gone already says so at the next write.
fn raise(quic: &mut Connection, stream: StreamId, priority: i32) {
    drop(quic.send_stream(stream).set_priority(priority));
}
