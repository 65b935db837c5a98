//! Configurations made of a fuzzer's bytes, and what must be refused of them, said once more in other words.
//!
//! # Invariants
//! * Every field takes values at both ends of its type as well as likely ones.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use arbitrary::{Arbitrary, Result as Made, Unstructured};
use driftless::config::{Config, CustomType};
use driftless::crdt::custom::Erased;
use driftless::error::ConfigError;
use driftless::id::RegionId;

fn duration(u: &mut Unstructured<'_>) -> Made<Duration> {
    Ok(match u.int_in_range(0..=7)? {
        0 => Duration::ZERO,
        1 => Duration::MAX,
        2 => Duration::from_nanos(u.arbitrary()?),
        3 => Duration::from_secs(u.arbitrary()?),
        _ => Duration::from_millis(u16::arbitrary(u)?.into()),
    })
}

fn size(u: &mut Unstructured<'_>) -> Made<usize> {
    Ok(match u.int_in_range(0..=4)? {
        0 => usize::arbitrary(u)?,
        1 => usize::from(u16::arbitrary(u)?),
        _ => 1_usize.checked_shl(u8::arbitrary(u)?.into()).unwrap_or(0),
    })
}

fn name(u: &mut Unstructured<'_>) -> Made<String> {
    let text: &str = u.arbitrary()?;
    Ok(if u.ratio(1, 16)? { text.repeat(u.int_in_range(0..=300)?) } else { text.chars().take(12).collect() })
}

/// Makes a configuration: the defaults, and by a mask of bits some fields that are anything.
///
/// # Errors
/// When the bytes are used up.
pub fn config(u: &mut Unstructured<'_>) -> Made<Config> {
    let mut config = if bool::arbitrary(u)? { Config::wan("eu", "unused:0") } else { Config::dev("eu", "unused:0") };
    let mask = u32::arbitrary(u)?;
    let (n, r, m, l) = (&mut config.node, &mut config.replication, &mut config.membership, &mut config.limits);
    let durations = [
        &mut r.linger,
        &mut r.report_every,
        &mut r.collect_after,
        &mut m.beat_every,
        &mut m.suspect_after,
        &mut m.give_up_after,
        &mut m.max_drift,
        &mut m.solo_after,
    ];
    for (at, field) in durations.into_iter().enumerate().filter(|(at, _)| mask >> at & 1 == 1) {
        *field = duration(u).unwrap_or(Duration::from_millis(u64::try_from(at).unwrap_or(0)));
    }
    let sizes = [
        &mut r.link_window_bytes,
        &mut l.partitions,
        &mut l.key_bytes_max,
        &mut l.value_bytes_max,
        &mut l.log_records_max,
    ];
    for (at, field) in sizes.into_iter().enumerate().filter(|(at, _)| mask >> (8 + at) & 1 == 1) {
        *field = size(u).unwrap_or(at);
    }
    if mask >> 13 & 1 == 1 {
        l.keyspace_bytes = u.arbitrary()?;
    }
    if mask >> 14 & 1 == 1 {
        n.cluster = name(u)?;
    }
    if mask >> 15 & 1 == 1 {
        n.region = RegionId::new(&name(u)?);
    }
    for _ in 0..(mask >> 16 & 3) {
        n.peers.push(name(u)?);
    }
    for _ in 0..(mask >> 18 & 3) {
        let merge = Arc::new(Erased::<crdts::PNCounter<u64>>::default());
        config.custom.push(CustomType { keyspace: name(u)?, type_name: name(u)?, merge });
    }
    [config.replication.express, config.replication.compress] = [mask >> 20 & 1 == 1, mask >> 21 & 1 == 1];
    Ok(config)
}

/// Tells whether a field of a configuration is as bad as an error says. In 128 bits nothing overflows.
#[must_use]
pub fn is_bad(config: &Config, error: &ConfigError) -> bool {
    let (m, l) = (&config.membership, &config.limits);
    let long = |text: &str| text.is_empty() || text.len() > 256;
    match error {
        ConfigError::Partitions { partitions } => {
            *partitions == l.partitions && !(0..=12).any(|bits| 1 << bits == *partitions)
        }
        ConfigError::DuplicatePeer { peer } => config.node.peers.iter().filter(|p| *p == peer).count() > 1,
        ConfigError::Field { field, .. } => match *field {
            "node.cluster" => long(&config.node.cluster),
            "node.region" => long(config.node.region.as_str()),
            "custom.type_name" => config.custom.iter().any(|c| long(&c.type_name)),
            "custom.keyspace" => {
                let names: BTreeSet<&str> = config.custom.iter().map(|c| c.keyspace.as_str()).collect();
                names.len() < config.custom.len()
            }
            "replication.collect_after" => config.replication.collect_after.as_nanos() <= 2 * m.max_drift.as_nanos(),
            "replication.link_window_bytes" => config.replication.link_window_bytes < 1_024,
            "membership.beat_every" => m.beat_every.is_zero(),
            "membership.suspect_after" => m.suspect_after.as_nanos() <= 2 * m.beat_every.as_nanos(),
            "membership.give_up_after" => m.give_up_after < m.suspect_after,
            "membership.forget_after" => m.forget_after.is_some_and(|after| after < m.give_up_after),
            "limits.key_bytes_max" => !(1..=65_536).contains(&l.key_bytes_max),
            "limits.value_bytes_max" => !(1..=524_288).contains(&l.value_bytes_max),
            _ => false,
        },
        _ => false,
    }
}
