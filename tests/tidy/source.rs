//! Just enough Rust to judge a file by its text: what is a comment, what is a string, what is a test.
//!
//! The idea: blank out what a rule must not see (same length, same lines), then search plain text.
//!
//! # Invariants
//! * Masking keeps every line break, so a line number of masked text is one of the file.
//! * A comment never starts inside a string, nor a string inside a comment.
//!
//! It is no parser: macros that build code out of pieces get past it, and a reviewer must not let them.

use std::path::Path;
use std::{fs, io};

/// What a piece of source text is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Piece {
    Code,
    Comment,
    Text,
}

/// Returns the source with comments and the contents of strings blanked out.
pub(super) fn code(source: &str) -> String {
    keep(source, &[Piece::Code])
}

/// Returns the source with comments blanked out.
pub(super) fn code_and_strings(source: &str) -> String {
    keep(source, &[Piece::Code, Piece::Text])
}

fn keep(source: &str, wanted: &[Piece]) -> String {
    let mut out = String::with_capacity(source.len());
    let mut rest = source;
    while !rest.is_empty() {
        let (piece, len) = next_piece(rest);
        let (head, tail) = rest.split_at(len);
        if wanted.contains(&piece) {
            out.push_str(head);
        } else {
            out.extend(head.chars().map(|c| if c == '\n' { c } else { ' ' }));
        }
        rest = tail;
    }
    out
}

/// Returns the kind and the length of what `rest` starts with.
fn next_piece(rest: &str) -> (Piece, usize) {
    if rest.starts_with("//") {
        return (Piece::Comment, rest.find('\n').unwrap_or(rest.len()));
    }
    if rest.starts_with("/*") {
        return (Piece::Comment, block_comment(rest));
    }
    if rest.starts_with('"') {
        return (Piece::Text, quoted(rest));
    }
    if let Some(len) = raw_string(rest) {
        return (Piece::Text, len);
    }
    if rest.starts_with('\'') {
        return (Piece::Code, char_literal(rest));
    }
    // A whole word at once, so that the `r` of `attr"…"` does not open a raw string.
    let word = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
    let first = rest.chars().next().map_or(1, char::len_utf8);
    (Piece::Code, word.max(first))
}

fn block_comment(rest: &str) -> usize {
    let (mut depth, mut at) = (0_usize, 0_usize);
    while let Some(tail) = rest.get(at..).filter(|tail| !tail.is_empty()) {
        let step = tail.chars().next().map_or(1, char::len_utf8);
        if tail.starts_with("/*") {
            (depth, at) = (depth + 1, at + 2);
        } else if tail.starts_with("*/") {
            (depth, at) = (depth - 1, at + 2);
        } else {
            at += step;
        }
        if depth == 0 {
            return at;
        }
    }
    rest.len()
}

fn quoted(rest: &str) -> usize {
    let mut escaped = false;
    for (at, c) in rest.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return at + 1,
            _ => {}
        }
    }
    rest.len()
}

fn raw_string(rest: &str) -> Option<usize> {
    let opening = ["r", "br", "cr"].iter().find_map(|prefix| rest.strip_prefix(prefix))?;
    let body = opening.trim_start_matches('#');
    let hashes = opening.len() - body.len();
    let closing = format!("\"{}", "#".repeat(hashes));
    let text = body.strip_prefix('"')?;
    let start = rest.len() - text.len();
    Some(text.find(&closing).map_or(rest.len(), |end| start + end + closing.len()))
}

/// A quote is a character literal or the start of a lifetime; only the former may hide a `"`.
fn char_literal(rest: &str) -> usize {
    if rest.starts_with("'\\") {
        return rest.char_indices().skip(3).find(|(_, c)| *c == '\'').map_or(1, |(at, _)| at + 1);
    }
    rest.char_indices().nth(2).filter(|(_, c)| *c == '\'').map_or(1, |(at, _)| at + 1)
}

/// Tells whether the whole file is test code.
fn is_test_file(path: &str) -> bool {
    path.starts_with("tests/") || path.ends_with("/tests.rs") || path.contains("/tests/")
}

/// Splits a file into its production text and the test module at its bottom.
pub(super) fn split_tests<'a>(path: &str, text: &'a str) -> (&'a str, &'a str) {
    if is_test_file(path) {
        return ("", text);
    }
    let mut from = 0;
    for line in text.split_inclusive('\n') {
        let rest = text.get(from..).unwrap_or_default();
        if line.trim_end() == "#[cfg(test)]" && opens_inline_module(rest) {
            return text.split_at(from);
        }
        from += line.len();
    }
    (text, "")
}

/// Tells whether the item after the attributes is `mod x {`; `mod x;` is only a declaration.
fn opens_inline_module(rest: &str) -> bool {
    let item = rest.lines().find(|line| line.starts_with(|c: char| c.is_alphabetic()));
    item.is_some_and(|line| line.starts_with("mod ") && line.trim_end().ends_with('{'))
}

/// Returns the module of the library a source file belongs to: `store` for `src/store/log.rs`.
pub(super) fn module_of(path: &str) -> Option<&str> {
    let first = path.strip_prefix("src/")?.split('/').next()?;
    Some(first.strip_suffix(".rs").unwrap_or(first))
}

/// Reads every file below the given places whose name ends in one of `endings`, in order of path.
pub(super) fn read(root: &Path, places: &[&str], endings: &[&str]) -> io::Result<Vec<(String, String)>> {
    let mut files = Vec::new();
    let mut open: Vec<_> = places.iter().map(|place| root.join(place)).collect();
    while let Some(path) = open.pop() {
        if path.is_dir() {
            for entry in fs::read_dir(&path)? {
                open.push(entry?.path());
            }
        } else if path.is_file() && endings.iter().any(|ending| path.to_string_lossy().ends_with(ending)) {
            let name = path.strip_prefix(root).unwrap_or(&path).to_string_lossy().replace('\\', "/");
            files.push((name, fs::read_to_string(&path)?));
        }
    }
    files.sort();
    Ok(files)
}

#[test]
fn masking_hides_comments_and_strings_and_keeps_the_lines() {
    let source =
        "let a = \"x // y\"; // z\n/* \" /* q */ */ let b = '\"'; let c: &'a str = r#\"w\"w\"#;\nlet d = '\\'';";
    assert_eq!(code(source).lines().count(), 3);
    assert!(!code(source).contains(['x', 'y', 'z', 'q', 'w']), "{}", code(source));
    assert!(code(source).contains("let b") && code(source).contains("&'a str") && code(source).contains("let d"));
    assert!(code_and_strings(source).contains("x // y") && !code_and_strings(source).contains('z'));
}

#[test]
fn only_an_inline_module_at_the_bottom_counts_as_tests() {
    let inline = "fn a() {}\n#[cfg(test)]\n#[expect(x)]\nmod tests {\n}\n";
    assert_eq!(split_tests("src/a.rs", inline).0, "fn a() {}\n");
    let declared = "#[cfg(test)]\nmod tests;\nfn a() {}\n";
    assert_eq!(split_tests("src/a.rs", declared).0, declared);
    assert_eq!(split_tests("src/a/tests.rs", declared).0, "");
}
