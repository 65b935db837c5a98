//! What happened in a run, in lines a person reads: steps, what was delivered between them, what nodes told their users.
//!
//! # Invariants
//! * At most as many lines are kept as were asked for, the last ones; with none asked for nothing is even composed.

use std::collections::VecDeque;
use std::fmt;
use std::hash::Hasher;
use std::time::Duration;

use super::cluster::SimCluster;
use super::plan::Step;
use crate::node::{Event, Input};

/// How much of what was delivered to all hosts.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Delivered {
    /// Links that came up, each counted at both ends.
    pub ups: u64,
    /// Links that ended, each counted where it was told.
    pub downs: u64,
    /// Dials that failed.
    pub failed_dials: u64,
    /// Control messages.
    pub controls: u64,
    /// Frames.
    pub frames: u64,
    /// Heartbeats.
    pub beats: u64,
    /// Bytes of all of it.
    pub bytes: u64,
}

impl Delivered {
    /// Counts what a host is told.
    pub(super) fn count(&mut self, input: &Input) {
        let (kind, bytes) = match input {
            Input::LinkUp { .. } => (&mut self.ups, 0),
            Input::LinkDown { .. } => (&mut self.downs, 0),
            Input::DialFailed { .. } => (&mut self.failed_dials, 0),
            Input::Control { bytes, .. } => (&mut self.controls, bytes.len()),
            Input::Log { bytes, .. } => (&mut self.frames, bytes.len()),
            Input::Beat { bytes, .. } => (&mut self.beats, bytes.len()),
            Input::Drained { .. }
            | Input::AcceptFailed { .. }
            | Input::Written
            | Input::Wait { .. }
            | Input::CancelWait { .. }
            | Input::Read { .. }
            | Input::Fetch { .. }
            | Input::Remove { .. }
            | Input::Rejoin
            | Input::Drain { .. }
            | Input::Resume
            | Input::Promote
            | Input::Demote
            | Input::Repair { .. }
            | Input::Certified { .. }
            | Input::Load { .. }
            | Input::Deadline
            | Input::Shutdown => return,
        };
        *kind += 1;
        self.bytes += u64::try_from(bytes).unwrap_or(u64::MAX);
    }
}

/// What there was any of; nothing for nothing.
impl fmt::Display for Delivered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kinds = [
            (self.ups, "link ups"),
            (self.downs, "link downs"),
            (self.failed_dials, "failed dials"),
            (self.controls, "control messages"),
            (self.frames, "frames"),
            (self.beats, "beats"),
            (self.bytes, "bytes"),
        ];
        let some: Vec<String> = kinds.iter().filter(|(n, _)| *n > 0).map(|(n, kind)| format!("{n} {kind}")).collect();
        f.write_str(&some.join(", "))
    }
}

impl SimCluster {
    /// Returns and forgets how much was delivered to all hosts.
    pub fn take_delivered(&mut self) -> Delivered {
        std::mem::take(&mut self.delivered)
    }
}

/// How exact the times of events are.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// The lines of a run, and what its report counts.
#[derive(Debug)]
pub(super) struct Tale {
    lines: VecDeque<String>,
    max: usize,
    /// Steps that made sense where they stood.
    pub(super) steps: usize,
    /// How long after the heal all agreed.
    pub(super) converged_in: Option<Duration>,
}

impl Tale {
    pub(super) fn new(max: usize) -> Self {
        Self { lines: VecDeque::new(), max, steps: 0, converged_in: None }
    }

    /// Writes a line at the present instant.
    pub(super) fn say(&mut self, cluster: Option<&SimCluster>, line: &str) {
        if self.max > 0 {
            let at = cluster.map_or(Duration::ZERO, SimCluster::elapsed);
            self.lines.push_back(format!("{:>9.3} s  {line}", at.as_secs_f64()));
            while self.lines.len() > self.max {
                self.lines.pop_front();
            }
        }
    }

    /// Notes a step of the plan and whether it made sense.
    pub(super) fn step(&mut self, cluster: &SimCluster, step: &Step, done: bool) {
        self.steps += usize::from(done);
        if self.max > 0 {
            let note = if done { "" } else { "  (makes no sense here)" };
            self.say(Some(cluster), &format!("{}{note}", step.action));
        }
    }

    /// Lets time pass, and notes what happened about when it did.
    pub(super) fn pass(&mut self, cluster: &mut SimCluster, time: Duration) {
        if self.max == 0 {
            return cluster.run_for(time);
        }
        let end = cluster.elapsed() + time;
        // Also in no time something may be due.
        loop {
            cluster.run_for(LOOK_EVERY.min(end.saturating_sub(cluster.elapsed())));
            self.catch_up(cluster);
            if cluster.elapsed() >= end {
                return;
            }
        }
    }

    /// Notes what was delivered and told since the last time.
    pub(super) fn catch_up(&mut self, cluster: &mut SimCluster) {
        if self.max == 0 {
            return;
        }
        let delivered = cluster.take_delivered().to_string();
        if !delivered.is_empty() {
            self.say(Some(cluster), &format!("    delivered: {delivered}"));
        }
        for at in 0..cluster.host_count() {
            for event in cluster.take_events(at) {
                self.say(Some(cluster), &format!("    r{at}: {}", told(&event)));
            }
        }
    }

    pub(super) fn into_lines(self) -> Vec<String> {
        self.lines.into()
    }
}

impl SimCluster {
    /// Hashes what a host is told; returns how many bytes it carries.
    pub(super) fn note(&mut self, at: usize, input: &Input) -> usize {
        self.delivered.count(input);
        let (kind, number, bytes) = match input {
            Input::LinkUp { link, .. } => (1, link.0, None),
            Input::LinkDown { link, .. } => (2, link.0, None),
            Input::Control { link, bytes } => (3, link.0, Some(bytes)),
            Input::Log { link, bytes } => (4, link.0, Some(bytes)),
            Input::Beat { link, bytes } => (5, link.0, Some(bytes)),
            Input::Drained { link, .. } => (6, link.0, None),
            Input::DialFailed { slot, .. } => (7, u64::try_from(slot.0).unwrap_or(u64::MAX), None),
            Input::AcceptFailed { .. } => (8, 0, None),
            Input::Written => (9, 0, None),
            Input::Wait { id, .. } | Input::Read { id, .. } => (10, id.0, None),
            Input::CancelWait { id } => (11, id.0, None),
            Input::Remove { replica } => (12, replica.0, None),
            Input::Deadline => (13, 0, None),
            Input::Shutdown => (14, 0, None),
            Input::Drain { .. }
            | Input::Resume
            | Input::Promote
            | Input::Demote
            | Input::Certified { .. }
            | Input::Load { .. }
            | Input::Fetch { .. }
            | Input::Repair { .. }
            | Input::Rejoin => (15, 0, None),
        };
        self.trace.write_u64(self.now.0);
        self.trace.write_usize(at);
        self.trace.write_u64(number << 4 | kind);
        let bytes = bytes.map_or(&[][..], |bytes| bytes.as_ref());
        self.trace.write(bytes);
        bytes.len()
    }
}

/// Returns an event in a few words.
fn told(event: &Event) -> String {
    match event {
        Event::Joined { founded: true } => "has founded a cluster".to_owned(),
        Event::Joined { founded: false } => "has joined".to_owned(),
        Event::Up { region, replica, .. } => format!("{region} is up as {replica}"),
        Event::Suspect { region, replica, .. } => format!("{region} is silent: {replica}"),
        Event::Unreachable { region, replica, .. } => format!("{region} is unreachable: {replica}"),
        Event::LinkDown { region, replica, .. } => format!("the path to {region} is cut: {replica}"),
        Event::GivenUp { region, replica, .. } => format!("{region} was gone for too long: {replica} is given up"),
        Event::Isolated => "hears nobody".to_owned(),
        Event::NotIsolated => "hears somebody again".to_owned(),
        Event::NotGivenUp { region, replica, votes, of, .. } => {
            format!("{region} was gone for too long, but only {votes} of {of} give {replica} up")
        }
        Event::MemberJoined { region, replica, .. } => format!("{region} joined as {replica}"),
        Event::MemberRemoved { region, replica, how, .. } => format!("{region} is no more {replica}: {how:?}"),
        Event::RoleChanged { region, replica, role, .. } => format!("{region} is {role:?} as {replica}"),
        Event::Refused { region, fault, .. } => format!("refuses {region}: {fault}"),
        Event::DialFailed { address, why } => format!("{address} does not answer: {why}"),
        Event::ClockRefused { skew_ms } => format!("its clock is refused, about {skew_ms} ms off"),
        Event::ClockAccepted => "its clock is accepted again".to_owned(),
        Event::Removed => "learns that it was removed".to_owned(),
        Event::Twin { replica } => format!("hears that {replica} has its identity, too"),
        Event::CameBack { former, replica, kept, lost } => {
            format!("comes back as {replica}, was {former}, keeps {kept} writes and loses {lost}")
        }
        Event::Reissued { written, outdated, lost } => {
            format!("writes {written} again, {outdated} are outdated and {lost} lost")
        }
        Event::CertificateExpires { days } => format!("its certificate expires in {days} days"),
        Event::Drained => "has handed everything over".to_owned(),
        Event::Left => "has handed everything over and left".to_owned(),
        Event::DuplicateReplica { replica } => format!("replica id {replica} is in use twice"),
        Event::Unsendable { unsendable } => format!("cannot send {unsendable:?}"),
        Event::Differs { region, partition, keys, .. } => {
            format!("differs from {region} in {keys} keys of {partition}")
        }
        Event::Restored { region, partition, keys, .. } => format!("{region} restores {keys} keys of {partition}"),
        Event::Quarantined { poison } => format!("skips {:?} of {:?}: {}", poison.key, poison.keyspace, poison.why),
    }
}
