//! The house rules as tests: what a reviewer should not have to look for.
//!
//! The idea is `TigerBeetle`'s `tidy.zig`: a rule is a function from a path and its text to complaints. Each test
//! first shows its rule a planted violation and an innocent twin, then the whole tree.
//!
//! # Invariants
//! * No rule is believed until it has caught what it is for.
//! * A rule has no list of excused files. Where it does not apply, the rule itself says so.
//!
//! Not here: what clippy sees (function length, nesting, panics, clocks, hash order); see `Cargo.toml` and
//! `clippy.toml`.

#[path = "tidy/imports.rs"]
mod imports;
#[path = "tidy/source.rs"]
mod source;

use std::collections::BTreeSet;
use std::path::Path;

use source::{code, code_and_strings, module_of, split_tests};

/// A complaint for every violation found in one file.
type Rule = fn(&str, &str) -> Vec<String>;

/// Where Rust sources live.
const SOURCES: &[&str] = &["src", "tests", "examples", "benches", "fuzz/fuzz_targets", "fuzz/src"];
/// What else a newcomer reads or runs.
const PAPERS: &[&str] = &[
    "README.md",
    "ARCHITECTURE.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "docs",
    "justfile",
    "Cargo.toml",
    "clippy.toml",
    "deny.toml",
    "rustfmt.toml",
    "fuzz/Cargo.toml",
    ".ci",
];
/// The shell and the doors, where time, tasks and sockets are.
const SHELL: &[&str] = &["runtime", "persist", "cache", "resp", "admin", "dns", "cli", "session"];
/// Where a lock may be: the shell's handles, the one shared structure, and where locks come from.
const LOCKED: &[&str] = &["src/runtime/", "src/cache/", "src/store/mod.rs", "src/store/keyspace.rs", "src/sync.rs"];
/// Where a queue between tasks may be made.
const QUEUED: &[&str] = &["src/runtime/", "src/cache/"];

const FILE_LINES_MAX: usize = 500;
/// The router of the core only routes, and stays small by decree.
const NODE_LINES_MAX: usize = 400;
/// A fuzz target says what must hold and leaves the rest to `fuzz/src`.
const TARGET_LINES_MAX: usize = 60;

/// Proves the rule on planted text, then holds the tree to it.
#[track_caller]
fn enforce(rule: Rule, planted: &[(&str, &str)], innocent: &[(&str, &str)]) {
    for (path, text) in planted {
        assert!(!rule(path, text).is_empty(), "the rule misses what was planted in {path}: {text}");
    }
    for (path, text) in innocent {
        assert_eq!(rule(path, text), Vec::<String>::new(), "the rule accuses the innocent {path}: {text}");
    }
    let mut files = tree(SOURCES, &[".rs"]);
    files.extend(tree(PAPERS, &[".md", ".toml", ".sh", ".ci/run", "justfile"]));
    let found: Vec<_> = files.iter().flat_map(|(path, text)| rule(path, text)).collect();
    assert!(found.is_empty(), "\n{}\n", found.join("\n"));
}

#[expect(clippy::expect_used, reason = "a tree that cannot be read must fail the test")]
fn tree(places: &[&str], endings: &[&str]) -> Vec<(String, String)> {
    source::read(Path::new(env!("CARGO_MANIFEST_DIR")), places, endings).expect("the tree is readable")
}

/// Complains about every line of `text` for which `is_bad` holds.
fn lines(path: &str, text: &str, what: &str, is_bad: impl Fn(&str) -> bool) -> Vec<String> {
    let bad = text.lines().enumerate().filter(|(_, line)| is_bad(line));
    bad.map(|(at, line)| format!("{path}:{}: {what}: {}", at + 1, line.trim())).collect()
}

fn is_rust(path: &str) -> bool {
    path.ends_with(".rs")
}

/// The simulator's QUIC is no core: quinn takes instants, which it makes of one and of virtual time.
fn is_core(path: &str) -> bool {
    !imports::is_quic_carrier(path) && module_of(path).is_some_and(|module| !SHELL.contains(&module) && module != "lib")
}

// -- size and names ------------------------------------------------------------------------------

fn file_budget(path: &str, text: &str) -> Vec<String> {
    let max = match path {
        "src/node/mod.rs" => NODE_LINES_MAX,
        path if path.starts_with("fuzz/fuzz_targets/") => TARGET_LINES_MAX,
        _ => FILE_LINES_MAX,
    };
    let len = split_tests(path, text).0.lines().count();
    if is_rust(path) && len > max { vec![format!("{path}: {len} lines, the budget is {max}")] } else { Vec::new() }
}

#[test]
fn no_file_outgrows_its_budget() {
    let (long, node) = ("fn a() {}\n".repeat(501), "fn a() {}\n".repeat(401));
    let target = "fn a() {}\n".repeat(61);
    let tests = format!("{}#[cfg(test)]\nmod tests {{\n{long}}}\n", "fn a() {}\n".repeat(499));
    enforce(
        file_budget,
        &[
            ("src/a.rs", &long),
            ("examples/a.rs", &long),
            ("src/node/mod.rs", &node),
            ("fuzz/fuzz_targets/a.rs", &target),
        ],
        &[("src/a.rs", &node), ("fuzz/src/a.rs", &target), ("src/a.rs", &tests), ("src/a/tests.rs", &long)],
    );
}

fn names(path: &str, text: &str) -> Vec<String> {
    const FILES: &[&str] = &["util", "utils", "helper", "helpers", "common", "misc"];
    const TYPES: &[&str] = &["Manager", "Coordinator", "Handler", "Helper", "Engine", "Core", "Common"];
    if !is_rust(path) {
        return Vec::new();
    }
    let mut segments = path.trim_end_matches(".rs").split('/');
    let mut found = Vec::new();
    if segments.any(|segment| FILES.contains(&segment)) {
        found.push(format!("{path}: name the file after what it is about"));
    }
    let declares = |line: &str| {
        let words: Vec<_> = line.split(|c: char| !c.is_alphanumeric() && c != '_').collect();
        words.windows(2).any(|pair| match pair {
            ["struct" | "enum" | "trait" | "type" | "union" | "mod", name] => {
                TYPES.iter().any(|banned| name.contains(banned)) || FILES.contains(name)
            }
            _ => false,
        })
    };
    found.extend(lines(path, &code(text), "names a doer, not a thing", declares));
    found
}

#[test]
fn no_name_says_nothing() {
    enforce(
        names,
        &[
            ("src/store/util.rs", ""),
            ("src/a.rs", "pub(crate) struct RegionCoordinator;"),
            ("src/a.rs", "trait HandlerExt {}"),
            ("tests/a.rs", "mod common;"),
        ],
        &[("src/a.rs", "/// struct FailoverManager is what we do not have.\nstruct Score; fn handle() {}")],
    );
}

fn preface(path: &str, text: &str) -> Vec<String> {
    let says_what = text.lines().next().is_some_and(|line| line.starts_with("//! ") && line.len() > 10);
    if is_rust(path) && !says_what { vec![format!("{path}: does not start with `//!`")] } else { Vec::new() }
}

#[test]
fn every_file_says_what_it_is() {
    enforce(
        preface,
        &[("src/a.rs", "use std::fmt;"), ("tests/a.rs", ""), ("examples/a.rs", "//!\n//! Late.")],
        &[("src/a.rs", "//! The log of one partition."), ("README.md", "# Driftless")],
    );
}

// -- layers ----------------------------------------------------------------------------------------

#[test]
fn imports_follow_the_table_of_layers() {
    enforce(
        imports::imports_go_down,
        &[
            ("src/clock/mod.rs", "use crate::store::Store;"),
            ("src/crdt/tree.rs", "fn f() { crate::wire::frame::encode(); }"),
            ("src/replication/outbox.rs", "use crate::{clock::Now, membership::{View}};"),
            ("src/runtime/driver.rs", "use crate::Cache;"),
            ("src/resp/mod.rs", "use crate::store::Store;"),
            ("src/novelty.rs", "fn f() {}"),
            ("src/node/mod.rs", "use tokio::time::Instant;"),
            ("src/wire/frame.rs", "fn f(c: &quinn::Connection) {}"),
            ("src/cache/mod.rs", "use rustls;"),
            ("src/sim/cluster.rs", "use crate::runtime::Driver;"),
            ("src/sim/carrier/quic/mod.rs", "use crate::cache::Cache;"),
            ("src/sim/carrier/quic/mod.rs", "use tokio::time::Instant;"),
        ],
        &[
            ("src/sim/carrier/quic/mod.rs", "use crate::runtime::transport::transport; use quinn_proto::Connection;"),
            ("src/clock/mod.rs", "//! See [`crate::node`].\nuse crate::id::ReplicaId; use crate::clock::Now;"),
            ("src/node/mod.rs", "use crate::{replication::Outbox, membership::View}; // not tokio::spawn"),
            ("src/runtime/link.rs", "use quinn::Connection; use tokio::select;"),
            ("src/lib.rs", "pub use crate::cache::Cache;"),
            ("src/node/output.rs", "const S: &str = \"crate::cache::Cache over quinn::Connection\";"),
        ],
    );
}

#[test]
fn no_import_goes_around_the_table() {
    enforce(
        imports::no_way_around_the_table,
        &[
            ("src/crdt/tree.rs", "use super::super::wire::Frame;"),
            ("src/id.rs", "use super::store::Store;"),
            ("src/node/mod.rs", "use super::cache::Cache;"),
            ("src/node/mod.rs", "#[path = \"../cache/mod.rs\"] mod cache;"),
        ],
        &[
            ("src/crdt/tree.rs", "use super::context::Ctx;"),
            ("src/id.rs", "fn a() {}\n#[cfg(test)]\nmod tests {\n    use super::*;\n}\n"),
        ],
    );
}

/// Returns the sources under `src/` that no `mod` declaration leads to.
fn unreachable(files: &[(String, String)]) -> Vec<String> {
    let mut reached = BTreeSet::new();
    let mut open = vec!["src/lib.rs".to_owned()];
    while let Some(path) = open.pop() {
        let Some((_, text)) = files.iter().find(|(name, _)| *name == path) else { continue };
        let stem = path.trim_end_matches(".rs");
        let parent = stem.rsplit_once('/').map_or("", |(parent, _)| parent);
        let dir = if stem == "src/lib" || stem.ends_with("/mod") { parent } else { stem };
        for line in code(text).lines().map(str::trim) {
            let declared = line.rsplit_once("mod ").and_then(|(_, name)| name.strip_suffix(';'));
            open.extend(declared.iter().flat_map(|m| [format!("{dir}/{m}.rs"), format!("{dir}/{m}/mod.rs")]));
        }
        reached.insert(path);
    }
    let dead = files.iter().filter(|(path, _)| path.starts_with("src/") && !reached.contains(path));
    dead.map(|(path, _)| format!("{path}: no `mod` declaration leads here")).collect()
}

#[test]
fn no_source_file_is_dead() {
    let file = |path: &str, text: &str| (path.to_owned(), text.to_owned());
    let lib = file("src/lib.rs", "pub mod a;\nmod b;\n// mod dead;");
    let mut small = vec![lib, file("src/a.rs", "mod c;"), file("src/a/c.rs", ""), file("src/b/mod.rs", "")];
    assert_eq!(unreachable(&small), Vec::<String>::new());
    small.push(file("src/dead.rs", ""));
    assert_eq!(unreachable(&small).len(), 1);

    let files = tree(SOURCES, &[".rs"]);
    assert!(files.len() > 10 && files.iter().any(|(path, _)| path == "tests/tidy.rs"), "the walk sees the tree");
    let dead = unreachable(&files);
    assert!(dead.is_empty(), "\n{}\n", dead.join("\n"));
}

// -- words -----------------------------------------------------------------------------------------

fn library_words(path: &str, text: &str) -> Vec<String> {
    const BANNED: &[&str] =
        &["anyhow", "Box<dyn Error", "Box<dyn std::error::Error", "env::var", "println!", "static mut", "unbounded"];
    let code = code(text);
    let is_bad = |line: &str| BANNED.iter().any(|word| line.contains(word)) || has_stringly_result(line);
    if path.starts_with("src/") { lines(path, &code, "no business in a library", is_bad) } else { Vec::new() }
}

/// Tells whether a `Result` on this line has `String` for its error.
fn has_stringly_result(line: &str) -> bool {
    line.match_indices("Result<").any(|(at, opening)| {
        let (mut depth, mut last) = (1_usize, String::new());
        for c in line.chars().skip(line.get(..at + opening.len()).map_or(0, |head| head.chars().count())) {
            match c {
                '<' | '(' | '[' => depth += 1,
                '>' | ')' | ']' => depth -= 1,
                _ => {}
            }
            match c {
                _ if depth == 0 => break,
                ',' if depth == 1 => last.clear(),
                _ => last.push(c),
            }
        }
        last.trim() == "String"
    })
}

#[test]
fn errors_are_types_and_the_library_reads_no_environment() {
    enforce(
        library_words,
        &[
            ("src/a.rs", "fn f() -> anyhow::Result<()>"),
            ("src/a.rs", "fn f() -> Result<(), Box<dyn Error>>"),
            ("src/a.rs", "fn f() -> Result<Vec<(u8, u8)>, String> {"),
            ("src/a.rs", "let p = std::env::var(\"P\");"),
            ("src/a.rs", "eprintln!(\"here\");"),
            ("src/runtime/a.rs", "let (tx, rx) = mpsc::unbounded_channel();"),
        ],
        &[
            ("src/a.rs", "/// println!(\"{x}\");\nfn f() -> Result<String, WriteError> {"),
            ("examples/a.rs", "println!(\"{}\", std::env::var(\"P\")?);"),
        ],
    );
}

fn core_words(path: &str, text: &str) -> Vec<String> {
    const BANNED: &[&str] = &[
        "SystemTime",
        "Instant",
        "Rng::new()",
        "fastrand::u",
        "fastrand::shuffle",
        "RandomState",
        "std::fs",
        "std::thread",
        "thread::spawn",
        "UdpSocket",
        "TcpStream",
        "async fn",
        ".await",
    ];
    let production = code(split_tests(path, text).0);
    let is_bad = |line: &str| BANNED.iter().any(|word| line.contains(word));
    if is_core(path) { lines(path, &production, "the core does no IO", is_bad) } else { Vec::new() }
}

#[test]
fn the_core_has_no_clock_no_chance_and_no_io() {
    enforce(
        core_words,
        &[
            ("src/node/mod.rs", "use std::time::Instant;"),
            ("src/store/mod.rs", "let pick = fastrand::usize(..n);"),
            ("src/wire/codec.rs", "async fn read() {}"),
            ("src/membership/view.rs", "let rng = fastrand::Rng::new();"),
        ],
        &[
            ("src/runtime/clock.rs", "use std::time::Instant;"),
            ("src/node/mod.rs", "fn new(rng: fastrand::Rng) {} // no Instant"),
        ],
    );
}

fn locks(path: &str, text: &str) -> Vec<String> {
    let is_bad = |line: &str| ["Mutex", "RwLock"].iter().any(|word| line.contains(word));
    let applies = path.starts_with("src/") && !LOCKED.iter().any(|place| path.starts_with(place));
    if applies { lines(path, &code(text), "a lock outside the store's view", is_bad) } else { Vec::new() }
}

#[test]
fn locks_are_where_the_one_shared_thing_is() {
    enforce(
        locks,
        &[("src/node/mod.rs", "state: Arc<Mutex<Node>>"), ("src/store/entry.rs", "use parking_lot::RwLock;")],
        &[("src/store/mod.rs", "partitions: Box<[Mutex<Partition>]>"), ("src/id.rs", "/// No Mutex.\nArc<str>")],
    );
}

fn queues(path: &str, text: &str) -> Vec<String> {
    let is_bad = |line: &str| line.contains("channel(") || line.contains("channel::<");
    let applies = path.starts_with("src/") && !QUEUED.iter().any(|place| path.starts_with(place));
    if applies { lines(path, &code(text), "a queue outside the shell", is_bad) } else { Vec::new() }
}

#[test]
fn queues_between_tasks_are_made_in_the_shell() {
    enforce(
        queues,
        &[("src/node/mod.rs", "let (a, b) = mpsc::channel(8);"), ("src/store/mod.rs", "channel::<u8>(1)")],
        &[("src/runtime/driver.rs", "let (a, b) = mpsc::channel(COMMANDS_MAX);")],
    );
}

fn test_words(path: &str, text: &str) -> Vec<String> {
    let tests = code(split_tests(path, text).1);
    let is_bad = |line: &str| ["sleep(", "#[ignore"].iter().any(|word| line.contains(word));
    if is_rust(path) { lines(path, &tests, "a test waits for events, and runs", is_bad) } else { Vec::new() }
}

#[test]
fn no_test_sleeps_and_none_is_skipped() {
    enforce(
        test_words,
        &[
            ("tests/quic.rs", "tokio::time::sleep(Duration::from_millis(50)).await;"),
            ("tests/quic.rs", "#[ignore = \"slow\"]"),
            ("src/a.rs", "#[cfg(test)]\nmod tests {\n    fn f() { std::thread::sleep(d); }\n}\n"),
        ],
        &[("src/runtime/driver.rs", "sleep(until).await;"), ("tests/a.rs", "// sleep(1)\nsleep_until(deadline)")],
    );
}

/// Networks reserved for documentation: nobody can ever be bound or reached there.
const DOCUMENTATION: &[&str] = &["192.0.2.", "198.51.100.", "203.0.113.", "[2001:db8:"];

fn ports(path: &str, text: &str) -> Vec<String> {
    let text = code_and_strings(split_tests(path, text).1);
    let is_bad = |line: &str| !DOCUMENTATION.iter().any(|net| line.contains(net)) && has_port(line);
    if is_rust(path) { lines(path, &text, "let the system choose the port (0)", is_bad) } else { Vec::new() }
}

/// Tells whether the line holds `host:port`, or `([a, b, c, d], port)`, or `(ADDRESS, port)` with a port that is not 0.
fn has_port(line: &str) -> bool {
    let number = |rest: &str| {
        let digits = rest.trim_start();
        let end = digits.find(|c: char| !c.is_ascii_digit() && c != '_').unwrap_or(digits.len());
        digits.get(..end).and_then(|number| number.replace('_', "").parse::<u64>().ok()).unwrap_or(0)
    };
    let after_host = |before: &str| {
        let host = before.rsplit(|c: char| !c.is_alphanumeric() && c != '.').next().unwrap_or_default();
        host == "localhost" || host.split('.').filter(|part| part.parse::<u8>().is_ok()).count() == 4
    };
    let colon = line.match_indices(':').any(|(at, _)| {
        let (before, after) = (line.get(..at).unwrap_or_default(), line.get(at + 1..).unwrap_or_default());
        (after_host(before) || before.ends_with("::1]") || before.ends_with("::]")) && number(after) > 0
    });
    let pair = ["LOCALHOST,", "UNSPECIFIED,", "LOCALHOST),", "UNSPECIFIED),", "0, 0, 1],"].iter().any(|host| {
        line.match_indices(host).any(|(at, _)| number(line.get(at + host.len()..).unwrap_or_default()) > 0)
    });
    colon || pair
}

#[test]
fn no_test_names_a_port() {
    enforce(
        ports,
        &[
            ("tests/quic.rs", concat!("bind(\"127.0.0.1", ":7401\")")),
            ("tests/quic.rs", concat!("connect(\"localhost", ":80\")")),
            ("tests/quic.rs", concat!("SocketAddr::new(LOCALHOST,", " 7_401)")),
            ("tests/quic.rs", concat!("SocketAddr::from(([127, 0, 0, 1],", " 7401))")),
            ("tests/quic.rs", concat!("\"[::1]", ":7401\"")),
        ],
        &[
            ("tests/quic.rs", concat!("bind(\"127.0.0.1:0\"); // not 127.0.0.1", ":7401")),
            ("tests/config.rs", "peers([\"192.0.2.1:7401\"])"),
            ("src/config.rs", concat!("/// `127.0.0.1", ":7401`\nfn f() {}")),
            ("tests/a.rs", "let t = \"12:30\"; let x: u8 = [1, 1][0]; f([0, 1], 3); map.get(&a::b1)"),
        ],
    );
}

fn debts(path: &str, text: &str) -> Vec<String> {
    const WORDS: &[&str] = &[
        concat!("TO", "DO"),
        concat!("FIX", "ME"),
        concat!("XX", "X"),
        concat!("HA", "CK"),
        concat!("to", "do!("),
        concat!("unimpl", "emented!("),
    ];
    lines(path, text, "do it or drop it", |line| WORDS.iter().any(|word| line.contains(word)))
}

#[test]
fn nothing_is_left_for_later() {
    let marker = concat!("// TO", "DO: later");
    enforce(debts, &[("src/a.rs", marker), ("justfile", marker)], &[("src/a.rs", "// Later is a word.")]);
}

fn machine_paths(path: &str, text: &str) -> Vec<String> {
    const PLACES: &[&str] = &["home/", "Users/", "root/", "work/", "tmp/", "mnt/"];
    let is_bad = |line: &str| {
        line.match_indices('/').any(|(at, _)| {
            let (before, after) = (line.get(..at).unwrap_or_default(), line.get(at + 1..).unwrap_or_default());
            let inside = before.ends_with(|c: char| c.is_alphanumeric() || "_-./}~)]>".contains(c));
            !inside && PLACES.iter().any(|place| after.starts_with(place))
        })
    };
    lines(path, text, "a path of one machine", is_bad)
}

#[test]
fn no_path_belongs_to_one_machine() {
    enforce(
        machine_paths,
        &[("tests/a.rs", concat!("read(\"/ho", "me/me/key.pem\")")), ("justfile", concat!("cd /wo", "rk/main"))],
        &[("src/a.rs", "// net/work/tmp/ and https://example.org/home/page and /etc/driftless/ca.pem")],
    );
}
