//! What a region process and the demo say to each other: JSON lines on stdin and stdout.
//!
//! The demo sends a [`Command`] per line; the region answers with a [`Report`] per line, and
//! streams one [`Report::Wrote`] for each write it issued. A record says everything an outside
//! judge needs: the event's identity, its place in the order, and what its writer had seen.
//!
//! # Invariants
//! * A record is written to stdout before the next operation is issued, so of a killed process at
//!   most one write is unrecorded, and it is the one after the last recorded.
//! * The types are the demo's own, not the library's: the judge must not share code with the judged.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The identity of one event.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub(crate) struct Dot {
    pub(crate) partition: u16,
    pub(crate) replica: u64,
    pub(crate) seq: u64,
}

/// The order of last-writer-wins; field order is comparison order.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub(crate) struct Stamp {
    /// Unix milliseconds above 16 bits of counter.
    pub(crate) hlc: u64,
    pub(crate) replica: u64,
}

impl Stamp {
    /// Returns the millisecond the event happened in.
    pub(crate) fn ms(self) -> u64 {
        self.hlc >> 16
    }
}

/// The events one partition has seen: per replica, inclusive ranges of sequence numbers, sorted,
/// disjoint and not adjacent.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Context(pub(crate) BTreeMap<u64, Vec<(u64, u64)>>);

impl Context {
    /// Tells whether an event was seen.
    pub(crate) fn has(&self, replica: u64, seq: u64) -> bool {
        self.has_range(replica, (seq, seq))
    }

    fn has_range(&self, replica: u64, range: (u64, u64)) -> bool {
        let ranges = self.0.get(&replica).map_or(&[][..], Vec::as_slice);
        ranges.iter().any(|r| r.0 <= range.0 && range.1 <= r.1)
    }

    /// Tells whether everything in `other` is in here.
    pub(crate) fn includes(&self, other: &Self) -> bool {
        other.0.iter().all(|(replica, ranges)| ranges.iter().all(|r| self.has_range(*replica, *r)))
    }

    /// Adds an inclusive range.
    pub(crate) fn add(&mut self, replica: u64, range: (u64, u64)) {
        let ranges = self.0.entry(replica).or_default();
        ranges.push(range);
        ranges.sort_unstable();
        let mut merged: Vec<(u64, u64)> = Vec::with_capacity(ranges.len());
        for (from, to) in ranges.drain(..) {
            match merged.last_mut() {
                Some(last) if from <= last.1.saturating_add(1) => last.1 = last.1.max(to),
                _ => merged.push((from, to)),
            }
        }
        *ranges = merged;
    }
}

/// The contexts of all partitions; a partition without events is left out.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Contexts(pub(crate) BTreeMap<u16, Context>);

impl Contexts {
    /// Tells whether an event was seen.
    pub(crate) fn has(&self, dot: Dot) -> bool {
        self.0.get(&dot.partition).is_some_and(|ctx| ctx.has(dot.replica, dot.seq))
    }

    /// Tells whether everything in `other` is in here.
    pub(crate) fn includes(&self, other: &Self) -> bool {
        let nothing = Context::default();
        other.0.iter().all(|(partition, ctx)| self.0.get(partition).unwrap_or(&nothing).includes(ctx))
    }

    /// Adds everything in `other`.
    pub(crate) fn join(&mut self, other: &Self) {
        for (partition, ctx) in &other.0 {
            let mine = self.0.entry(*partition).or_default();
            for (replica, ranges) in &ctx.0 {
                ranges.iter().for_each(|range| mine.add(*replica, *range));
            }
        }
    }
}

/// What a write did.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Kind {
    Set,
    Delete,
    Touch,
    Put,
    Remove,
    Clear,
    Incr,
    Reset,
}

/// One write, as the region that issued it tells it.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub(crate) struct Record {
    /// The operation's place in the workload, from 0.
    pub(crate) index: usize,
    pub(crate) region: String,
    pub(crate) keyspace: String,
    pub(crate) key: String,
    /// The field of a map; nothing for registers, counters and `clear`.
    pub(crate) path: Option<String>,
    pub(crate) kind: Kind,
    /// What `set` and `put` wrote.
    pub(crate) value: Option<Value>,
    /// What `incr` added.
    pub(crate) by: i64,
    pub(crate) dot: Dot,
    pub(crate) stamp: Stamp,
    /// The time to live asked for; nothing is for ever.
    pub(crate) ttl_ms: Option<u64>,
    /// Where the library says the write's end lies; without it, stamp + time to live.
    pub(crate) deadline_ms: Option<u64>,
    /// What the partition had seen just before this write.
    pub(crate) before: Context,
    /// Present when other events may have slipped in between reading `before` and the write: what
    /// the partition had seen just after. The truth lies between the two.
    pub(crate) after: Option<Context>,
    /// When it was issued, in Unix milliseconds.
    pub(crate) issued_ms: u64,
}

/// What the demo asks of a region.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Command {
    /// Replay this region's share of operations `from..to`, at `rate` operations a second;
    /// answered by [`Report::RunDone`] when through.
    Run {
        from: usize,
        to: usize,
        rate: f64,
    },
    /// A phase begins: forget the lag measured so far.
    Mark,
    Stats,
    Dump,
    /// A short fingerprint of all contexts.
    Digest,
    Contexts,
    /// Answered by [`Report::Reached`] as soon as everything in `target` was seen here.
    Reach {
        id: u64,
        target: Contexts,
    },
    Quit,
}

/// What a region tells the demo.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Report {
    /// The replica has joined (or founded) the cluster.
    Ready {
        region: String,
        replica: u64,
        listen: String,
    },
    Wrote(Box<Record>),
    /// A write reached a quorum of replicas.
    Acked {
        dot: Dot,
    },
    /// A write found nothing to act on, so no event happened.
    NoEffect {
        index: usize,
    },
    /// An operation was refused; nothing was written.
    Refused {
        index: usize,
        reason: String,
    },
    RunDone {
        to: usize,
    },
    Marked,
    Stats(Box<Stats>),
    Dump(Box<Dump>),
    Digest {
        digest: String,
    },
    Contexts(Box<Contexts>),
    Reached {
        id: u64,
    },
    /// The process cannot go on.
    Failed {
        reason: String,
    },
}

/// What a region counted since it started; lag since the last mark.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Stats {
    pub(crate) reads: u64,
    pub(crate) hits: u64,
    pub(crate) writes: u64,
    pub(crate) refused: u64,
    /// Pairs of concurrent writes this replica met, of which one lost.
    pub(crate) conflicts: u64,
    /// Per region of origin, how long its writes took to become visible here.
    pub(crate) lag: BTreeMap<String, Histogram>,
    /// Bytes of frames before and after compression.
    pub(crate) frame_bytes_raw: u64,
    pub(crate) frame_bytes_sent: u64,
}

/// How often each delay in milliseconds was seen.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Histogram(pub(crate) BTreeMap<u64, u64>);

impl Histogram {
    /// Counts a delay.
    pub(crate) fn add(&mut self, ms: u64, count: u64) {
        *self.0.entry(ms).or_default() += count;
    }

    /// Returns the smallest delay that `percent` of all do not exceed.
    pub(crate) fn quantile(&self, percent: u64) -> Option<u64> {
        let rank = self.len().saturating_mul(percent).div_ceil(100);
        let mut passed = 0;
        self.0.iter().find_map(|(ms, count)| {
            passed += count;
            (passed >= rank).then_some(*ms)
        })
    }

    /// Returns how many delays were counted.
    pub(crate) fn len(&self) -> u64 {
        self.0.values().sum()
    }
}

/// Everything a region shows, and everything it has seen.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Dump {
    pub(crate) region: String,
    /// The wall clock before the first and after the last read.
    pub(crate) from_ms: u64,
    pub(crate) to_ms: u64,
    pub(crate) contexts: Contexts,
    pub(crate) cells: Vec<Cell>,
}

/// One visible value. A counter that shows 0 is not visible.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub(crate) struct Cell {
    pub(crate) keyspace: String,
    pub(crate) key: String,
    pub(crate) path: Option<String>,
    pub(crate) value: Value,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contexts_know_gaps_and_subsets() {
        let mut ctx = Context::default();
        for seq in [1, 2, 5, 4, 9] {
            ctx.add(7, (seq, seq));
        }
        assert_eq!(ctx.0[&7], vec![(1, 2), (4, 5), (9, 9)]);
        assert!(ctx.has(7, 4) && !ctx.has(7, 3) && !ctx.has(8, 1));
        let mut part = Context::default();
        part.add(7, (4, 5));
        assert!(ctx.includes(&part) && !part.includes(&ctx));
        let mut all = Contexts(BTreeMap::from([(3, part)]));
        all.join(&Contexts(BTreeMap::from([(3, ctx.clone()), (4, ctx.clone())])));
        assert!(all.0[&3] == ctx && all.has(Dot { partition: 4, replica: 7, seq: 9 }));
    }

    #[test]
    fn messages_survive_a_line_of_json() {
        let dot = Dot { partition: 3, replica: u64::MAX, seq: 9 };
        let mut ctx = Context::default();
        ctx.add(u64::MAX, (1, 9));
        let dump = Dump { contexts: Contexts(BTreeMap::from([(3, ctx.clone())])), ..Dump::default() };
        for report in [Report::Acked { dot }, Report::Dump(Box::new(dump)), Report::Marked] {
            let line = serde_json::to_string(&report).unwrap();
            assert_eq!(serde_json::from_str::<Report>(&line).unwrap(), report);
        }
        let reach = Command::Reach { id: 1, target: Contexts(BTreeMap::from([(0, ctx)])) };
        let line = serde_json::to_string(&reach).unwrap();
        assert_eq!(serde_json::from_str::<Command>(&line).unwrap(), reach);
    }
}
