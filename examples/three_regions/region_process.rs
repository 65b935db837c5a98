//! One region as the demo sees it: a child process, the commands it is given and what it tells.
//!
//! # Invariants
//! * The child is killed when this value is dropped.
//! * Everything the child wrote to its standard output before it ended is in the journal once
//!   [`RegionProcess::kill`] returns; only an unfinished last line is not.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::error::Error;
use std::path::Path;
use std::process::Stdio;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStdin, ChildStdout, Command as Program};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::progress::Progress;
use crate::support::protocol::{Command, Dot, Record, Report};

/// Answers not yet looked at: commands are given one at a time, so a handful is plenty.
const ANSWERS_MAX: usize = 64;

/// Everything the regions told about their writes.
#[derive(Debug, Default)]
pub(crate) struct Journal {
    pub(crate) records: Vec<Record>,
    pub(crate) acked: BTreeSet<Dot>,
    pub(crate) refused: Vec<String>,
    /// Lines that are no report. A killed process may leave one, its last.
    pub(crate) unreadable: usize,
    /// Per region, the last operation that wrote, was refused, or had no effect.
    pub(crate) last: BTreeMap<String, usize>,
}

/// The journal all readers write to.
#[derive(Clone, Debug, Default)]
pub(crate) struct SharedJournal(Arc<Mutex<Journal>>);

impl SharedJournal {
    /// Returns the journal. Not to be held across an await.
    pub(crate) fn open(&self) -> MutexGuard<'_, Journal> {
        // Entries are pushed whole, so a poisoned journal is a complete one.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A running region.
#[derive(Debug)]
pub(crate) struct RegionProcess {
    name: String,
    child: Child,
    stdin: ChildStdin,
    answers: mpsc::Receiver<Report>,
    unread: VecDeque<Report>,
    patience: Duration,
    reader: JoinSet<()>,
}

impl RegionProcess {
    /// Starts `program` with `args`.
    pub(crate) fn spawn(
        name: &str,
        program: &Path,
        args: &[String],
        patience: Duration,
        telling: (SharedJournal, Progress),
    ) -> Result<Self, Box<dyn Error>> {
        let mut child = Program::new(program)
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(|e| format!("{name} did not start: {}: {e}", program.display()))?;
        let stdin = child.stdin.take().ok_or("a child without standard input")?;
        let stdout = child.stdout.take().ok_or("a child without standard output")?;
        let (sender, answers) = mpsc::channel(ANSWERS_MAX);
        let mut reader = JoinSet::new();
        reader.spawn(read(name.to_owned(), stdout, sender, telling));
        Ok(Self { name: name.to_owned(), child, stdin, answers, unread: VecDeque::new(), patience, reader })
    }

    /// Gives a command.
    pub(crate) async fn tell(&mut self, command: &Command) -> Result<(), Box<dyn Error>> {
        let mut line = serde_json::to_vec(command)?;
        line.push(b'\n');
        let name = &self.name;
        self.stdin.write_all(&line).await.map_err(|e| format!("{name} does not listen any more: {e}").into())
    }

    /// Waits for the next answer that `pick` wants; others stay for whoever wants them.
    pub(crate) async fn wait<T>(
        &mut self,
        what: &str,
        within: Duration,
        pick: impl Fn(&Report) -> Option<T>,
    ) -> Result<T, Box<dyn Error>> {
        let early = self.unread.iter().enumerate().find_map(|(at, report)| Some((at, pick(report)?)));
        if let Some((at, wanted)) = early {
            self.unread.remove(at);
            return Ok(wanted);
        }
        let name = &self.name;
        let (answers, unread) = (&mut self.answers, &mut self.unread);
        let search = async {
            while let Some(report) = answers.recv().await {
                if let Report::Failed { reason } = &report {
                    return Err(format!("{name}: {reason}"));
                }
                match pick(&report) {
                    Some(wanted) => return Ok(wanted),
                    None => unread.push_back(report),
                }
            }
            Err(format!("{name} ended while the demo waited for {what}"))
        };
        match timeout(within, search).await {
            Ok(found) => found.map_err(Into::into),
            Err(_) => Err(format!("{name}: no {what} within {within:?}").into()),
        }
    }

    /// Gives a command and waits for its answer.
    pub(crate) async fn ask<T>(
        &mut self,
        command: &Command,
        pick: impl Fn(&Report) -> Option<T>,
    ) -> Result<T, Box<dyn Error>> {
        self.tell(command).await?;
        self.wait("answer", self.patience, pick).await
    }

    /// Kills the process (SIGKILL) and reads what it had still told.
    pub(crate) async fn kill(mut self) -> Result<(), Box<dyn Error>> {
        self.child.kill().await?;
        drop(self.answers);
        while self.reader.join_next().await.is_some() {}
        Ok(())
    }

    /// Asks the process to end, and waits until it has.
    pub(crate) async fn quit(mut self) -> Result<(), Box<dyn Error>> {
        self.tell(&Command::Quit).await?;
        let name = &self.name;
        match timeout(self.patience, self.child.wait()).await {
            Ok(status) if status.as_ref().is_ok_and(std::process::ExitStatus::success) => Ok(()),
            Ok(status) => Err(format!("{name} ended badly: {status:?}").into()),
            Err(_) => Err(format!("{name} did not end within {:?}", self.patience).into()),
        }
    }
}

/// Reads a child's standard output to its end.
async fn read(
    name: String,
    stdout: ChildStdout,
    answers: mpsc::Sender<Report>,
    (journal, progress): (SharedJournal, Progress),
) {
    let mut lines = BufReader::new(stdout).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        // The last line of a killed process may be half a line.
        let Ok(report) = serde_json::from_str(&line) else {
            journal.open().unreadable += 1;
            continue;
        };
        match report {
            Report::Wrote(record) => {
                progress.wrote();
                let mut journal = journal.open();
                journal.last.insert(name.clone(), record.index);
                journal.records.push(*record);
            }
            Report::NoEffect { index } => {
                progress.wrote();
                journal.open().last.insert(name.clone(), index);
            }
            Report::Refused { index, reason } => {
                progress.wrote();
                let mut journal = journal.open();
                journal.last.insert(name.clone(), index);
                journal.refused.push(format!("operation {index} in {name}: {reason}"));
            }
            Report::Acked { dot } => {
                journal.open().acked.insert(dot);
            }
            answer @ (Report::Ready { .. }
            | Report::RunDone { .. }
            | Report::Marked
            | Report::Stats(_)
            | Report::Dump(_)
            | Report::Digest { .. }
            | Report::Contexts(_)
            | Report::Reached { .. }
            | Report::Failed { .. }) => {
                // Nobody waits any more when this end is closed; the journal still does.
                drop(answers.send(answer).await);
            }
        }
    }
}
