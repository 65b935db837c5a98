//! Plans of simulation runs made of a fuzzer's bytes, so that coverage guides what happens to a cluster.
//!
//! # Invariants
//! * Five bytes are one step, so a mutation of the input is a mutation of the schedule.
//! * Plans are short: few hosts, few steps, little virtual time. What takes longer is the seeds' to find.

use std::time::Duration;

use driftless::sim::{Ack, Action, Carrier, Lie, Op, OpKind, Plan, Setting, Step, Weather};

/// Most steps of a plan.
const STEPS_MAX: usize = 24;
const LIES: [Lie; 8] =
    [Lie::Report, Lie::Origin, Lie::Events, Lie::HugeContext, Lie::Noise, Lie::Garbled, Lie::Hello, Lie::Flood];

/// Makes a plan of any bytes: eight for the setting, five for each step.
#[must_use]
pub fn plan(input: &[u8]) -> Option<Plan> {
    let (&[seed, hosts, wire, delay, loss, twice, corrupt, log], steps) = input.split_first_chunk::<8>()?;
    let percent = |byte: u8, max: u8| f64::from(byte % (max + 1)) / 100.0;
    let nodes = 2 + usize::from(hosts % 2);
    let weather = Weather {
        delay_min: Duration::from_millis(1),
        delay_max: Duration::from_millis(1 + u64::from(delay) / 2),
        loss: percent(loss, 30),
        duplicate: percent(twice, 50),
        corrupt: percent(corrupt / 64, 3),
        bursts: None,
    };
    let bit = |at: u8| u64::from(wire >> at & 1 & (wire >> 7));
    let setting = Setting {
        nodes,
        spare: usize::from(hosts >> 2 & 1),
        partitions: 1 + usize::from(hosts >> 3 & 1),
        log_records_max: if log < 64 { 16 } else { 1 << 16 },
        compress: wire & 1 == 1,
        express: wire & 2 == 2,
        ttl_ms_max: if wire & 4 == 4 { 2_000 } else { 0 },
        weather,
        carrier: Carrier::Messages,
        newer: bit(3),
        liars: bit(4) << (nodes - 1),
        ..Setting::default()
    };
    let steps = steps.as_chunks().0.iter().take(STEPS_MAX).map(step).collect();
    Some(Plan { seed: u64::from(seed) + 1, setting, steps })
}

fn step(&[what, after, places, subject, amount]: &[u8; 5]) -> Step {
    let after_ms = if after < 128 { u32::from(after) } else { u32::from(after - 127) * 16 };
    Step { after_ms, action: action(what, (places & 7, places >> 3 & 7), subject, amount) }
}

/// More than half of what happens is traffic.
fn action(what: u8, (at, to): (u8, u8), subject: u8, amount: u8) -> Action {
    if let Some(kind) = OpKind::ALL.get(usize::from(what % 48)) {
        return write(at, *kind, subject, amount);
    }
    match what % 48 {
        20..=23 => Action::Read { client: to, at, key: subject & 3 },
        24 => Action::Cut { from: at, to },
        25 => Action::Isolate { at },
        26 => Action::Split { at },
        27..=28 => Action::Heal,
        29 => Action::Clog { from: at, to, ms: u16::from(amount) * 16 },
        30 => Action::Slow { at, bytes_per_ms: u16::from(amount) },
        31 => Action::Skew { at, ms: (i64::from(amount) - 128) * 80 },
        32 => Action::Pause { at, ms: u32::from(amount) * 32 },
        33 => Action::Crash { at },
        34 => Action::CrashDonor { of: at },
        35 => Action::Stop { at },
        36..=38 => Action::Start { at },
        39 => Action::Clone { of: at },
        40 => Action::Remove { by: at, at: to },
        41..=42 => Action::Evict { at, key: subject & 3, map: subject & 4 == 4 },
        43 => Action::Truncate { at, keep: amount & 3 },
        46 => Action::Drain { at, leave: amount & 1 == 1 },
        44..=45 => Action::Forge { at, lie: LIES[usize::from(subject & 7)] },
        _ => Action::Rest,
    }
}

fn write(at: u8, kind: OpKind, subject: u8, amount: u8) -> Action {
    let op = Op { kind, key: subject & 3, name: subject >> 2 & 3, ttl: amount & 0x3f };
    let ack = (subject & 0x80 != 0).then(|| Ack { all: amount & 0x80 != 0, within_ms: u16::from(amount) * 8 });
    Action::Write { at, op, ack }
}
