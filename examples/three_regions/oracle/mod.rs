//! The judge: from what was written to what must be visible, and what was found instead.
//!
//! It is given every write as its issuer recorded it, everything each region showed at the end,
//! and who was killed. It knows nothing of the library: the rules are in `rules.rs`, and they are
//! stated over the set of all writes at once, where the library applies them one message at a time.
//!
//! # Invariants
//! * Regions are compared with each other in full, whatever the rules expect.
//! * Doubt is counted, never resolved in anybody's favour: a place whose outcome the records leave
//!   open accepts each outcome they allow and no other.
//!
//! What is *not* here: waiting. The dumps must be taken when nothing is about to expire, see
//! [`deadlines`].

mod rules;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::support::protocol::{Cell, Contexts, Dot, Dump, Record};
use rules::Accepted;
pub(crate) use rules::deadlines;

/// A key of a key space.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Key {
    pub(crate) keyspace: String,
    pub(crate) key: String,
}

/// A key, and the field in it if it is a map.
pub(crate) type Place = (Key, Option<String>);

/// A process that was killed while it ran.
#[derive(Clone, Debug)]
pub(crate) struct Killed {
    pub(crate) replica: u64,
    pub(crate) at_ms: u64,
    /// The key of the one write it may have made without telling, if there was one to make.
    pub(crate) in_flight: Option<Key>,
}

/// Everything the verdict rests on.
#[derive(Clone, Debug, Default)]
pub(crate) struct Evidence {
    pub(crate) records: Vec<Record>,
    /// Writes that reached a quorum before their writer was killed, or at all.
    pub(crate) acked: BTreeSet<Dot>,
    pub(crate) killed: Vec<Killed>,
    pub(crate) dumps: Vec<Dump>,
}

/// What was found.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Findings {
    /// Keys at which two regions show different things.
    pub(crate) diverged: BTreeSet<Key>,
    /// Whether every region has seen exactly the same events.
    pub(crate) contexts_differ: bool,
    /// Events missing somewhere that nothing excuses, and places that miss the value they owe.
    pub(crate) lost: Vec<String>,
    /// Events only a killed region ever had, and for how long it had the oldest of them.
    pub(crate) lost_local: u64,
    pub(crate) lost_local_oldest_ms: u64,
    /// Places that show something although their newest event took it away.
    pub(crate) resurrected: BTreeSet<Place>,
    /// Places where the records allow more than one outcome.
    pub(crate) ambiguous: u64,
    /// Keys left out because a killed region may have written them without telling.
    pub(crate) unjudged: BTreeSet<Key>,
    /// Per region, its writes that met a concurrent write of another region at the same place.
    pub(crate) conflicts: BTreeMap<String, u64>,
}

impl Findings {
    /// Says in one line what went wrong, or `converged`.
    pub(crate) fn verdict(&self) -> String {
        let counts = [
            (self.diverged.len(), "keys diverged"),
            (usize::from(self.contexts_differ), "difference in what regions have seen"),
            (self.lost.len(), "writes lost"),
            (self.resurrected.len(), "keys resurrected"),
        ];
        let wrong: Vec<String> = counts.iter().filter(|(n, _)| *n > 0).map(|(n, what)| format!("{n} {what}")).collect();
        if wrong.is_empty() { "converged".to_owned() } else { wrong.join(", ") }
    }
}

/// Judges a run.
pub(crate) fn judge(evidence: &Evidence) -> Findings {
    let mut findings = Findings::default();
    compare_regions(&evidence.dumps, &mut findings);
    let mut seen = Contexts::default();
    evidence.dumps.iter().for_each(|dump| seen.join(&dump.contexts));
    let present: Vec<&Record> = evidence.records.iter().filter(|r| seen.has(r.dot)).collect();
    find_lost(evidence, &mut findings);
    find_unjudged(evidence, &seen, &mut findings);
    let keys = by_key(&present);
    for dump in &evidence.dumps {
        check_region(dump, &keys, &mut findings);
    }
    let at_ms = evidence.dumps.iter().map(|d| d.from_ms).max().unwrap_or(0);
    for (_, records) in keys.iter().filter(|(key, _)| !findings.unjudged.contains(key)) {
        let open = rules::expect(records, at_ms).into_values().filter(|accepted| accepted.len() > 1);
        findings.ambiguous += open.map(|_| 1).sum::<u64>();
    }
    for (region, count) in keys.values().flat_map(|records| rules::conflicts(records)) {
        *findings.conflicts.entry(region).or_default() += count;
    }
    findings
}

fn by_key<'a>(records: &[&'a Record]) -> BTreeMap<Key, Vec<&'a Record>> {
    let mut keys: BTreeMap<Key, Vec<&Record>> = BTreeMap::new();
    for record in records {
        keys.entry(key_of(record)).or_default().push(record);
    }
    keys
}

fn key_of(record: &Record) -> Key {
    Key { keyspace: record.keyspace.clone(), key: record.key.clone() }
}

fn visible(dump: &Dump) -> BTreeMap<Place, &Value> {
    let place = |cell: &Cell| (Key { keyspace: cell.keyspace.clone(), key: cell.key.clone() }, cell.path.clone());
    dump.cells.iter().map(|cell| (place(cell), &cell.value)).collect()
}

fn compare_regions(dumps: &[Dump], findings: &mut Findings) {
    for (n, a) in dumps.iter().enumerate() {
        for b in dumps.iter().skip(n + 1) {
            let (shown_a, shown_b) = (visible(a), visible(b));
            let places = shown_a.keys().chain(shown_b.keys());
            let differ = places.filter(|place| shown_a.get(place) != shown_b.get(place));
            findings.diverged.extend(differ.map(|(key, _)| key.clone()));
            findings.contexts_differ |= a.contexts != b.contexts;
        }
    }
}

/// Finds events that some region has not seen.
fn find_lost(evidence: &Evidence, findings: &mut Findings) {
    for record in &evidence.records {
        if evidence.dumps.iter().all(|dump| dump.contexts.has(record.dot)) {
            continue;
        }
        let killed = evidence.killed.iter().find(|k| k.replica == record.dot.replica);
        let nowhere = !evidence.dumps.iter().any(|dump| dump.contexts.has(record.dot));
        match killed {
            Some(killed) if nowhere && !evidence.acked.contains(&record.dot) => {
                findings.lost_local += 1;
                let age_ms = killed.at_ms.saturating_sub(record.issued_ms);
                findings.lost_local_oldest_ms = findings.lost_local_oldest_ms.max(age_ms);
            }
            Some(_) | None => findings.lost.push(describe(record, "not seen everywhere")),
        }
    }
}

fn describe(record: &Record, what: &str) -> String {
    let Record { index, region, kind, keyspace, key, .. } = record;
    format!("operation {index} ({kind:?} {keyspace}/{key} in {region}): {what}")
}

/// Finds the keys a killed region wrote without living to tell.
fn find_unjudged(evidence: &Evidence, seen: &Contexts, findings: &mut Findings) {
    for killed in &evidence.killed {
        let told: BTreeSet<Dot> =
            evidence.records.iter().map(|r| r.dot).filter(|d| d.replica == killed.replica).collect();
        let untold = seen.0.iter().any(|(partition, ctx)| {
            let ranges = ctx.0.get(&killed.replica).map_or(&[][..], Vec::as_slice);
            let mut seqs = ranges.iter().flat_map(|(from, to)| *from..=*to);
            seqs.any(|seq| !told.contains(&Dot { partition: *partition, replica: killed.replica, seq }))
        });
        if untold {
            findings.unjudged.extend(killed.in_flight.clone());
        }
    }
}

fn check_region(dump: &Dump, keys: &BTreeMap<Key, Vec<&Record>>, findings: &mut Findings) {
    let shown = visible(dump);
    let mut owed: BTreeMap<Place, Accepted> = BTreeMap::new();
    for (key, records) in keys {
        let places = rules::expect(records, dump.from_ms).into_iter();
        owed.extend(places.map(|(path, accepted)| ((key.clone(), path), accepted)));
    }
    let nothing = vec![None];
    let places: BTreeSet<&Place> = owed.keys().chain(shown.keys()).collect();
    for place in places {
        if findings.unjudged.contains(&place.0) {
            continue;
        }
        let got = shown.get(place).map(|value| (*value).clone());
        let accepted = owed.get(place).unwrap_or(&nothing);
        if accepted.contains(&got) {
            continue;
        }
        if accepted.iter().all(Option::is_none) {
            findings.resurrected.insert(place.clone());
        } else {
            let (Key { keyspace, key }, path) = place;
            let path = path.as_deref().unwrap_or_default();
            findings.lost.push(format!("{}: {keyspace}/{key} {path} shows {got:?}, owes {accepted:?}", dump.region));
        }
    }
}
