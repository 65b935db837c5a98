//! Who may import whom: the architecture as a table, and the rule that holds the sources to it.
//!
//! The idea: a path that leaves its module starts with `crate::`, so scanning for that finds every import.
//! `super::super::` and a `super::` that climbs out of a top-level module would get past the scan and are refused.
//!
//! # Invariants
//! * Every module of the library has a row; a new one fails until somebody decides where it stands.
//! * A module always sees itself. `lib.rs` sees everything: it re-exports the paved path.

use super::source::{code, module_of, split_tests};

/// A module, and which others it may import.
///
/// `clock` and `id` are one layer. `error` names only identities, so it is a leaf that every layer above the data
/// types may see. `cache` shows users what a level, an outcome, an event and a stamp are, so it sees where those
/// words are defined; what the node does inside is private to it. `config` holds what the layers below `node` are told, and only `node` and above read it.
/// `replication`, `repair` and `membership` meet only in `node`. `sim` carries links over the real QUIC state machine on
/// its virtual clock, and takes the shell's framing, certificates and close codes for it rather than twins of them. `sync` is seen by the few that share something.
const LAYERS: &[(&str, &[&str])] = &[
    ("clock", &["id", "probe", "sync"]),
    ("id", &["clock", "probe"]),
    ("probe", &[]),
    ("sync", &[]),
    ("error", &["clock", "id"]),
    ("crdt", &["clock", "id", "probe"]),
    ("store", &["error", "crdt", "clock", "id", "probe", "sync"]),
    ("config", &["store", "error", "crdt", "clock", "id"]),
    ("wire", &["store", "error", "crdt", "clock", "id", "probe"]),
    ("replication", &["wire", "store", "error", "crdt", "clock", "id", "probe"]),
    ("repair", &["wire", "store", "error", "crdt", "clock", "id", "probe"]),
    ("membership", &["wire", "store", "error", "crdt", "clock", "id", "probe"]),
    ("routing", &["membership", "clock", "id"]),
    (
        "node",
        &["replication", "repair", "membership", "wire", "store", "config", "error", "crdt", "clock", "id", "probe"],
    ),
    (
        "sim",
        &[
            "node",
            "replication",
            "repair",
            "membership",
            "wire",
            "store",
            "config",
            "error",
            "crdt",
            "clock",
            "id",
            "probe",
        ],
    ),
    ("runtime", &["node", "wire", "config", "error", "clock", "id", "probe", "sync"]),
    (QUIC_CARRIER, &["sim", "runtime", "node", "error", "clock", "id", "probe"]),
    ("persist", &["store", "config", "error", "crdt", "clock", "id"]),
    ("cache", &["runtime", "routing", "node", "store", "config", "error", "crdt", "clock", "id", "probe"]),
    ("resp", &["cache"]),
    ("admin", &["cache"]),
    ("dns", &["cache"]),
    ("cli", &["cache"]),
    ("session", &["cache"]),
];

/// The one place of the simulator that sees the shell: it is to behave as the shell does, so it takes the shell's
/// transport, framing, certificates and words for how a link ends instead of having its own. It does no IO.
pub(super) const QUIC_CARRIER: &str = "sim/carrier/quic";

/// A foreign crate that brings IO, tasks or clocks, and the modules that may name it.
const CRATES: &[(&str, &[&str])] = &[
    ("tokio", &["runtime", "cache"]),
    ("quinn", &["runtime"]),
    ("quinn_proto", &["runtime", QUIC_CARRIER]),
    ("rustls", &["runtime", QUIC_CARRIER]),
    ("x509_parser", &["runtime"]),
];

/// Every import goes down the table.
pub(super) fn imports_go_down(path: &str, text: &str) -> Vec<String> {
    let Some(module) = module_of(path).filter(|module| *module != "lib") else {
        return Vec::new();
    };
    let module = if is_quic_carrier(path) { QUIC_CARRIER } else { module };
    let Some((_, allowed)) = LAYERS.iter().find(|(name, _)| *name == module) else {
        return vec![format!("{path}: module `{module}` has no row in the table of layers (tests/tidy/imports.rs)")];
    };
    // Unit tests may build what they need.
    let code = code(split_tests(path, text).0);
    let crate_paths = paths(&code, "crate::").filter(|found| found != module && !allowed.contains(&found.as_str()));
    let ours = crate_paths.map(|found| format!("{path}: `{module}` may not import `crate::{found}`"));
    let foreign = CRATES.iter().filter(|(name, homes)| !homes.contains(&module) && names_crate(&code, name));
    ours.chain(foreign.map(|(name, _)| format!("{path}: `{module}` may not name the crate `{name}`"))).collect()
}

/// Tells whether a source is of the simulator's QUIC.
pub(super) fn is_quic_carrier(path: &str) -> bool {
    path.strip_prefix("src/")
        .and_then(|inside| inside.strip_prefix(QUIC_CARRIER))
        .is_some_and(|rest| rest.starts_with('/'))
}

/// No path climbs out of its module by `super`.
pub(super) fn no_way_around_the_table(path: &str, text: &str) -> Vec<String> {
    let production = code(split_tests(path, text).0);
    let mut found = Vec::new();
    if path.starts_with("src/") && production.contains("super::super::") {
        found.push(format!("{path}: write `crate::…` instead of `super::super::`"));
    }
    let inside = path.strip_prefix("src/").unwrap_or_default();
    let is_top = !inside.contains('/') || (inside.matches('/').count() == 1 && inside.ends_with("/mod.rs"));
    if path.starts_with("src/") && is_top && production.contains("super::") {
        found.push(format!("{path}: `super` is the crate here, write `crate::…`"));
    }
    if path.starts_with("src/") && production.contains("#[path") {
        found.push(format!("{path}: a module lies where its name says, no `#[path]`"));
    }
    found
}

/// Returns the first segments after every `prefix`, groups in braces opened.
fn paths<'a>(code: &'a str, prefix: &'a str) -> impl Iterator<Item = String> + 'a {
    code.match_indices(prefix)
        .filter(|(at, _)| !code.get(..*at).is_some_and(|before| before.ends_with(is_word)))
        .flat_map(move |(at, _)| heads(code.get(at + prefix.len()..).unwrap_or_default()))
}

/// Returns the first segment of a path, or of every path of a group.
fn heads(rest: &str) -> Vec<String> {
    let Some(group) = rest.strip_prefix('{') else {
        return vec![head(rest)];
    };
    let (mut depth, mut start, mut found) = (0_usize, 0, Vec::new());
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth > 0 => depth -= 1,
            ',' | '}' if depth == 0 => {
                found.push(head(group.get(start..at).unwrap_or_default()));
                start = at + 1;
                if c == '}' {
                    break;
                }
            }
            _ => {}
        }
    }
    found.retain(|name| !name.is_empty());
    found
}

fn head(path: &str) -> String {
    let path = path.trim_start();
    let end = path.find(|c: char| !is_word(c)).unwrap_or(path.len());
    let name = path.get(..end).unwrap_or_default();
    if name.is_empty() { path.chars().take(1).collect() } else { name.to_owned() }
}

fn names_crate(code: &str, name: &str) -> bool {
    code.match_indices(name).any(|(at, _)| {
        let before = code.get(..at).unwrap_or_default();
        let after = code.get(at + name.len()..).unwrap_or_default();
        let imported = before.ends_with("use ") && !after.starts_with(is_word);
        (after.starts_with("::") || imported) && !before.ends_with(is_word) && !before.ends_with("::")
    })
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

#[test]
fn the_table_has_no_cycle_but_the_first_layer() {
    let position = |name: &str| LAYERS.iter().position(|(module, _)| *module == name);
    for (module, allowed) in LAYERS.iter().skip(2) {
        for below in *allowed {
            assert!(position(below) < position(module), "`{module}` may import `{below}`, which is not below it");
        }
    }
}

#[test]
fn grouped_imports_are_opened() {
    let source = "use crate::{clock::{Now, Mono}, id::NodeId, *};";
    assert_eq!(paths(source, "crate::").collect::<Vec<_>>(), ["clock", "id", "*"]);
}
