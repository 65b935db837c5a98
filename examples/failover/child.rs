//! One node as the demo sees it: a child process, and a door at which many may ask at once.
//!
//! # Invariants
//! * The child is killed when this value is dropped.
//! * Nobody waits at a door for longer than they said, and a door behind which nobody is says so.
//! * Everything the child wrote before it ended is in the ledger once [`Child::kill`] returns.

use std::collections::BTreeMap;
use std::error::Error;
use std::path::Path;
use std::process::Stdio;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::{ChildStdin, ChildStdout, Command};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout, timeout_at};

use crate::ledger::Ledger;
use crate::protocol::{Answer, Asked, Question, Report};

/// Questions on their way into a process that does not read; more than all clients together ask at once. One beyond
/// waits for nothing, like a packet in a full queue.
const QUESTIONS_MAX: usize = 512;

/// Why there was no answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Silent {
    /// There is no process.
    Gone,
    /// There may be one, but it did not answer in time.
    Late,
}

/// The way to a running process; clones share it.
#[derive(Clone, Debug)]
pub(crate) struct Door {
    questions: mpsc::Sender<Asked>,
    open: Arc<Open>,
}

/// Who waits for an answer, by the number of their question.
#[derive(Debug)]
struct Open {
    next: AtomicU64,
    /// Nothing once the process has ended.
    waiting: Mutex<Option<BTreeMap<u64, oneshot::Sender<Answer>>>>,
}

impl Open {
    fn waiting(&self) -> MutexGuard<'_, Option<BTreeMap<u64, oneshot::Sender<Answer>>>> {
        // Each change is one call, so what a poisoned lock holds is whole.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait(&self, id: u64) -> Option<oneshot::Receiver<Answer>> {
        let (sender, answer) = oneshot::channel();
        self.waiting().as_mut()?.insert(id, sender);
        Some(answer)
    }

    fn take(&self, id: u64) -> Option<oneshot::Sender<Answer>> {
        self.waiting().as_mut()?.remove(&id)
    }
}

impl Door {
    /// Asks, and waits at most `within` for the answer.
    pub(crate) async fn ask(&self, question: Question, within: Duration) -> Result<Answer, Silent> {
        let deadline = Instant::now() + within;
        let id = self.open.next.fetch_add(1, Ordering::Relaxed);
        let Some(answer) = self.open.wait(id) else { return Err(Silent::Gone) };
        match self.questions.try_send(Asked { id, question }) {
            Ok(()) => {}
            Err(mpsc::error::TrySendError::Closed(_)) => return Err(Silent::Gone),
            Err(mpsc::error::TrySendError::Full(_)) => {
                sleep_until(deadline).await;
                drop(self.open.take(id));
                return Err(Silent::Late);
            }
        }
        match timeout_at(deadline, answer).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(_)) => Err(Silent::Gone),
            Err(_) => {
                drop(self.open.take(id));
                Err(Silent::Late)
            }
        }
    }
}

/// A running node.
#[derive(Debug)]
pub(crate) struct Child {
    name: String,
    process: tokio::process::Child,
    door: Door,
    ready: Option<oneshot::Receiver<Answer>>,
    tasks: JoinSet<()>,
}

impl Child {
    /// Starts `program` with `args`. It is of use only once it has [joined](Self::joined).
    pub(crate) fn spawn(
        (site, name): (usize, String),
        program: &Path,
        args: &[String],
        ledger: Ledger,
    ) -> Result<Self, Box<dyn Error>> {
        let mut process = Command::new(program)
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(|e| format!("{name} did not start: {}: {e}", program.display()))?;
        let stdin = process.stdin.take().ok_or("a child without standard input")?;
        let stdout = process.stdout.take().ok_or("a child without standard output")?;
        let (questions, asked) = mpsc::channel(QUESTIONS_MAX);
        let open = Arc::new(Open { next: AtomicU64::new(1), waiting: Mutex::new(Some(BTreeMap::new())) });
        let ready = open.wait(0);
        let mut tasks = JoinSet::new();
        tasks.spawn(write(stdin, asked));
        tasks.spawn(read(site, stdout, Arc::clone(&open), ledger));
        Ok(Self { name, process, door: Door { questions, open }, ready, tasks })
    }

    /// Returns the way to it.
    pub(crate) fn door(&self) -> Door {
        self.door.clone()
    }

    /// Returns its number in the operating system, while it runs.
    pub(crate) fn pid(&self) -> Option<u32> {
        self.process.id()
    }

    /// Waits until it has joined; returns the id of its replica.
    pub(crate) async fn joined(&mut self, within: Duration) -> Result<u64, Box<dyn Error>> {
        let name = &self.name;
        let ready = self.ready.take().ok_or("it was waited for before")?;
        match timeout(within, ready).await {
            Ok(Ok(Answer::Ready { replica })) => Ok(replica),
            Ok(Ok(Answer::Failed { reason })) => Err(format!("{name}: {reason}").into()),
            Ok(Ok(_)) => Err(format!("{name} answers what nobody asked").into()),
            Ok(Err(_)) => Err(format!("{name} ended before it had joined").into()),
            Err(_) => Err(format!("{name}: no sign of having joined within {within:?}").into()),
        }
    }

    /// Kills the process (SIGKILL) and reads what it had still told.
    pub(crate) async fn kill(mut self) -> Result<(), Box<dyn Error>> {
        self.process.kill().await?;
        drop(self.door);
        while self.tasks.join_next().await.is_some() {}
        Ok(())
    }

    /// Asks the process to end, and waits until it has.
    pub(crate) async fn quit(mut self, within: Duration) -> Result<(), Box<dyn Error>> {
        // It answers by ending.
        drop(self.door.ask(Question::Quit, within).await);
        let name = &self.name;
        match timeout(within, self.process.wait()).await {
            Ok(status) if status.as_ref().is_ok_and(std::process::ExitStatus::success) => Ok(()),
            Ok(status) => Err(format!("{name} ended badly: {status:?}").into()),
            Err(_) => Err(format!("{name} did not end within {within:?}").into()),
        }
    }
}

/// Hands questions to a child until it or everybody who could ask is gone.
async fn write(mut stdin: ChildStdin, mut asked: mpsc::Receiver<Asked>) {
    while let Some(question) = asked.recv().await {
        let Ok(mut line) = serde_json::to_vec(&question) else { continue };
        line.push(b'\n');
        if stdin.write_all(&line).await.is_err() {
            return;
        }
    }
}

/// Reads a child's standard output to its end.
async fn read(site: usize, stdout: ChildStdout, open: Arc<Open>, ledger: Ledger) {
    let mut lines = BufReader::new(stdout).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        // The last line of a killed process may be half a line.
        match serde_json::from_str(&line) {
            Ok(Report::Answer { id, answer }) => {
                if let Some(waiting) = open.take(id) {
                    // Who gave up in this moment does not need it.
                    drop(waiting.send(answer));
                }
            }
            Ok(report) => ledger.hear(site, report),
            Err(_) => ledger.open().unreadable += 1,
        }
    }
    *open.waiting() = None;
}
