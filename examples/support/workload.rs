//! The workload file: one operation per line, as a JSON object.
//!
//! The format is documented for people in `examples/README.md`. A line is read into [`Line`], a
//! plain mirror of the JSON, and then turned into an [`Op`], which cannot say anything
//! meaningless: a `put` has a field, a `get` has no time to live.
//!
//! # Invariants
//! * A key space holds one type of entry; a file that mixes types is refused, with the line.
//! * `parse(render(op)) == op`.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// One operation, meant for one region or for whoever's turn it is.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Op {
    pub(crate) keyspace: String,
    pub(crate) key: String,
    pub(crate) action: Action,
    /// The region that issues it; `None` spreads such operations round robin.
    pub(crate) region: Option<String>,
}

/// What an operation does. A missing time to live means for ever.
#[derive(Clone, PartialEq, Debug)]
pub(crate) enum Action {
    Set { value: Value, ttl_ms: Option<u64> },
    Get,
    Delete,
    Touch { ttl_ms: u64 },
    Put { field: String, value: Value, ttl_ms: Option<u64> },
    Remove { field: String },
    GetField { field: String },
    Clear,
    Incr { by: i64, ttl_ms: Option<u64> },
    Count,
    Reset,
}

/// The type of entry a key space holds.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Family {
    Register,
    Map,
    Counter,
}

impl Action {
    /// Returns the type of entry this action is for.
    pub(crate) fn family(&self) -> Family {
        match self {
            Self::Set { .. } | Self::Get | Self::Delete | Self::Touch { .. } => Family::Register,
            Self::Put { .. } | Self::Remove { .. } | Self::GetField { .. } | Self::Clear => Family::Map,
            Self::Incr { .. } | Self::Count | Self::Reset => Family::Counter,
        }
    }

    /// Tells whether it only reads.
    pub(crate) fn is_read(&self) -> bool {
        matches!(self, Self::Get | Self::GetField { .. } | Self::Count)
    }
}

impl Op {
    /// Tells whether region `name`, number `turn.0` of `turn.1`, issues the operation at `index`.
    pub(crate) fn is_for(&self, index: usize, name: &str, turn: (usize, usize)) -> bool {
        match &self.region {
            Some(region) => region == name,
            None => index % turn.1.max(1) == turn.0,
        }
    }
}

/// The JSON of one line.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    op: String,
    keyspace: String,
    key: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    field: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    by: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ttl_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    region: Option<String>,
}

/// Why a workload file was refused. Nothing of it was run.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct WorkloadError {
    /// The line, counted from 1.
    pub(crate) line: usize,
    /// What is wrong with it.
    pub(crate) reason: String,
}

impl fmt::Display for WorkloadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}; no operation was run", self.line, self.reason)
    }
}

impl std::error::Error for WorkloadError {}

/// Reads a whole file. Empty lines are skipped but counted.
pub(crate) fn parse(text: &str) -> Result<Vec<Op>, WorkloadError> {
    let mut families: BTreeMap<String, (Family, usize)> = BTreeMap::new();
    let mut ops = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        if line.trim().is_empty() {
            continue;
        }
        let op = parse_line(line).map_err(|reason| WorkloadError { line: number, reason })?;
        let family = op.action.family();
        let (first, at) = *families.entry(op.keyspace.clone()).or_insert((family, number));
        if first != family {
            let reason = format!("key space `{}` holds a {first:?} since line {at}, not a {family:?}", op.keyspace);
            return Err(WorkloadError { line: number, reason });
        }
        ops.push(op);
    }
    Ok(ops)
}

fn parse_line(text: &str) -> Result<Op, String> {
    let line: Line = serde_json::from_str(text).map_err(|e| e.to_string())?;
    if line.keyspace.is_empty() || line.key.is_empty() {
        return Err("`keyspace` and `key` must not be empty".to_owned());
    }
    if line.ttl_ms == Some(0) {
        return Err("`ttl_ms` is 0, and nothing lives for no time; leave it out for ever".to_owned());
    }
    let mut rest = Rest(line.clone());
    let action = rest.action(&line.op)?;
    rest.nothing_left(&line.op)?;
    Ok(Op { keyspace: line.keyspace, key: line.key, action, region: line.region })
}

/// The optional members of a line, taken out one by one.
struct Rest(Line);

impl Rest {
    fn action(&mut self, op: &str) -> Result<Action, String> {
        let ttl_ms = |rest: &mut Self| rest.0.ttl_ms.take();
        Ok(match op {
            "set" => Action::Set { value: self.value(op)?, ttl_ms: ttl_ms(self) },
            "get" => Action::Get,
            "delete" => Action::Delete,
            "touch" => Action::Touch { ttl_ms: ttl_ms(self).ok_or("`touch` needs a `ttl_ms`")? },
            "put" => Action::Put { field: self.field(op)?, value: self.value(op)?, ttl_ms: ttl_ms(self) },
            "remove" => Action::Remove { field: self.field(op)? },
            "get_field" => Action::GetField { field: self.field(op)? },
            "clear" => Action::Clear,
            "incr" => Action::Incr { by: self.by()?, ttl_ms: ttl_ms(self) },
            "count" => Action::Count,
            "reset" => Action::Reset,
            other => return Err(format!("`{other}` is no operation")),
        })
    }

    fn field(&mut self, op: &str) -> Result<String, String> {
        self.0.field.take().ok_or_else(|| format!("`{op}` needs a `field`"))
    }

    fn value(&mut self, op: &str) -> Result<Value, String> {
        self.0.value.take().ok_or_else(|| format!("`{op}` needs a `value`"))
    }

    fn by(&mut self) -> Result<i64, String> {
        match self.0.by.take() {
            Some(0) => Err("`incr` by 0 does nothing".to_owned()),
            by => Ok(by.unwrap_or(1)),
        }
    }

    fn nothing_left(&self, op: &str) -> Result<(), String> {
        let left = [
            ("field", self.0.field.is_some()),
            ("value", self.0.value.is_some()),
            ("by", self.0.by.is_some()),
            ("ttl_ms", self.0.ttl_ms.is_some()),
        ];
        match left.iter().find(|(_, there)| *there) {
            Some((name, _)) => Err(format!("`{op}` takes no `{name}`")),
            None => Ok(()),
        }
    }
}

/// Writes one operation as a line, without the line end.
pub(crate) fn render(op: &Op) -> Result<String, serde_json::Error> {
    let mut line =
        Line { keyspace: op.keyspace.clone(), key: op.key.clone(), region: op.region.clone(), ..Line::default() };
    let name = match op.action.clone() {
        Action::Set { value, ttl_ms } => {
            (line.value, line.ttl_ms) = (Some(value), ttl_ms);
            "set"
        }
        Action::Get => "get",
        Action::Delete => "delete",
        Action::Touch { ttl_ms } => {
            line.ttl_ms = Some(ttl_ms);
            "touch"
        }
        Action::Put { field, value, ttl_ms } => {
            (line.field, line.value, line.ttl_ms) = (Some(field), Some(value), ttl_ms);
            "put"
        }
        Action::Remove { field } => {
            line.field = Some(field);
            "remove"
        }
        Action::GetField { field } => {
            line.field = Some(field);
            "get_field"
        }
        Action::Clear => "clear",
        Action::Incr { by, ttl_ms } => {
            (line.by, line.ttl_ms) = ((by != 1).then_some(by), ttl_ms);
            "incr"
        }
        Action::Count => "count",
        Action::Reset => "reset",
    };
    line.op = name.to_owned();
    serde_json::to_string(&line)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(text: &str) -> String {
        parse(text).unwrap_err().to_string()
    }

    #[test]
    fn every_operation_survives_writing_and_reading() {
        let text = r#"{"op":"set","keyspace":"s","key":"a","value":{"u":1},"ttl_ms":5,"region":"us-east"}
{"op":"get","keyspace":"s","key":"a"}
{"op":"delete","keyspace":"s","key":"a"}
{"op":"touch","keyspace":"s","key":"a","ttl_ms":9}

{"op":"put","keyspace":"c","key":"a","field":"x","value":2}
{"op":"remove","keyspace":"c","key":"a","field":"x"}
{"op":"get_field","keyspace":"c","key":"a","field":"x"}
{"op":"clear","keyspace":"c","key":"a"}
{"op":"incr","keyspace":"n","key":"a","ttl_ms":3}
{"op":"incr","keyspace":"n","key":"a","by":-4}
{"op":"count","keyspace":"n","key":"a"}
{"op":"reset","keyspace":"n","key":"a"}"#;
        let ops = parse(text).unwrap();
        let written: Vec<String> = ops.iter().map(|op| render(op).unwrap()).collect();
        assert_eq!(written, text.lines().filter(|l| !l.is_empty()).collect::<Vec<_>>());
    }

    #[test]
    fn a_refusal_names_the_line_and_the_reason() {
        let ok = r#"{"op":"get","keyspace":"s","key":"a"}"#;
        let cases = [
            (r#"{"op":"fetch","keyspace":"s","key":"a"}"#, "`fetch` is no operation"),
            (r#"{"op":"put","keyspace":"c","key":"a","value":1}"#, "`put` needs a `field`"),
            (r#"{"op":"set","keyspace":"s","key":"a"}"#, "`set` needs a `value`"),
            (r#"{"op":"get","keyspace":"s","key":"a","ttl_ms":4}"#, "`get` takes no `ttl_ms`"),
            (r#"{"op":"set","keyspace":"s","key":"a","value":1,"ttl_ms":0}"#, "`ttl_ms` is 0"),
            (r#"{"op":"set","keyspace":"s","key":"a","value":1,"ttl":1}"#, "unknown field `ttl`"),
            (r#"{"op":"touch","keyspace":"s","key":"a"}"#, "`touch` needs a `ttl_ms`"),
            (r#"{"op":"put","keyspace":"s","key":"a","field":"f","value":1}"#, "holds a Register since line 1"),
            (r#"{"op":"get","keyspace":"","key":"a"}"#, "must not be empty"),
            (r#"{"op":"get""#, "EOF"),
        ];
        for (line, reason) in cases {
            let message = refused(&format!("{ok}\n\n{line}"));
            assert!(message.starts_with("line 3: ") && message.contains(reason), "{message}");
        }
    }

    #[test]
    fn operations_without_a_region_are_spread_and_each_has_one_issuer() {
        let mut op = parse(r#"{"op":"get","keyspace":"s","key":"a"}"#).unwrap().remove(0);
        let issuers = |op: &Op, index| {
            let names = ["us-east", "eu-central", "ap-southeast"];
            (0..3).filter(|i| op.is_for(index, names[*i], (*i, 3))).collect::<Vec<_>>()
        };
        assert_eq!((issuers(&op, 3), issuers(&op, 5)), (vec![0], vec![2]));
        op.region = Some("eu-central".to_owned());
        assert_eq!((issuers(&op, 3), issuers(&op, 5)), (vec![1], vec![1]));
    }
}
