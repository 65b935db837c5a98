//! A region driven by a person: one short command per line.
//!
//! # Invariants
//! * Every command is turned into the same operation a workload file would hold, so what can be
//!   typed and what can be replayed is the same thing.

use std::error::Error;
use std::io::Write;

use serde_json::Value;
use tokio::io::{AsyncBufReadExt, BufReader};

use super::replica::{Applied, Replica};
use crate::support::workload::{Action, Op};

const HELP: &str = "\
set KEY VALUE [TTL_MS]       get KEY      delete KEY   touch KEY TTL_MS   (sessions)
put KEY FIELD VALUE [TTL_MS] field KEY F  remove KEY F clear KEY          (carts)
incr KEY [BY]                count KEY    reset KEY                       (limits)
help, quit; a VALUE is JSON, or a word";

/// Serves a person until `quit` or the end of input.
pub(crate) async fn serve(mut replica: Replica) -> Result<(), Box<dyn Error>> {
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    writeln!(std::io::stdout(), "listening on {}; `help` lists the commands", replica.listen())?;
    let mut index = 0_usize;
    while let Some(line) = lines.next_line().await? {
        let answer = match line.trim() {
            "" => continue,
            "quit" => break,
            "help" => HELP.to_owned(),
            command => match parse(command) {
                Ok(op) => show(replica.apply(index, &op)),
                Err(reason) => reason,
            },
        };
        index = index.saturating_add(1);
        writeln!(std::io::stdout(), "{answer}")?;
    }
    replica.shutdown().await;
    Ok(())
}

fn show(applied: Result<Applied, Box<dyn Error>>) -> String {
    match applied {
        Ok(Applied::Written(record)) => {
            let dot = record.dot;
            format!("written: event {} of replica {:016x} in partition {}", dot.seq, dot.replica, dot.partition)
        }
        Ok(Applied::Read(Some(value))) => value.to_string(),
        Ok(Applied::Read(None)) => "nothing there".to_owned(),
        Ok(Applied::NoEffect) => "nothing there to change".to_owned(),
        Err(error) => error.to_string(),
    }
}

fn parse(command: &str) -> Result<Op, String> {
    let words: Vec<&str> = command.split_whitespace().collect();
    let ttl = |word: &str| match word.parse() {
        Ok(0) | Err(_) => Err(format!("`{word}` is no time to live in milliseconds")),
        Ok(ms) => Ok(ms),
    };
    let optional = |word: Option<&&str>| word.map(|word| ttl(word)).transpose();
    let (keyspace, key, action) = match words.as_slice() {
        ["set", key, value, rest @ ..] if rest.len() < 2 => {
            ("sessions", key, Action::Set { value: json(value), ttl_ms: optional(rest.first())? })
        }
        ["get", key] => ("sessions", key, Action::Get),
        ["delete", key] => ("sessions", key, Action::Delete),
        ["touch", key, ms] => ("sessions", key, Action::Touch { ttl_ms: ttl(ms)? }),
        ["put", key, field, value, rest @ ..] if rest.len() < 2 => {
            let (field, ttl_ms) = ((*field).to_owned(), optional(rest.first())?);
            ("carts", key, Action::Put { field, value: json(value), ttl_ms })
        }
        ["field", key, field] => ("carts", key, Action::GetField { field: (*field).to_owned() }),
        ["remove", key, field] => ("carts", key, Action::Remove { field: (*field).to_owned() }),
        ["clear", key] => ("carts", key, Action::Clear),
        ["incr", key] => ("limits", key, Action::Incr { by: 1, ttl_ms: None }),
        ["incr", key, by] => {
            let by = by.parse().ok().ok_or_else(|| format!("`{by}` is no whole number"))?;
            ("limits", key, Action::Incr { by, ttl_ms: None })
        }
        ["count", key] => ("limits", key, Action::Count),
        ["reset", key] => ("limits", key, Action::Reset),
        _ => return Err("not understood; `help` lists the commands".to_owned()),
    };
    Ok(Op { keyspace: keyspace.to_owned(), key: (*key).to_owned(), action, region: None })
}

fn json(word: &str) -> Value {
    serde_json::from_str(word).unwrap_or_else(|_| Value::from(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_become_operations() {
        let set = parse("set alice {\"a\":1} 60000").unwrap();
        assert_eq!((set.keyspace.as_str(), set.key.as_str()), ("sessions", "alice"));
        assert_eq!(set.action, Action::Set { value: serde_json::json!({"a": 1}), ttl_ms: Some(60_000) });
        assert_eq!(
            parse("put u1 sku 2").unwrap().action,
            Action::Put { field: "sku".to_owned(), value: Value::from(2), ttl_ms: None }
        );
        assert_eq!(parse("incr ip -3").unwrap().action, Action::Incr { by: -3, ttl_ms: None });
        assert_eq!(parse("set alice word").unwrap().action, Action::Set { value: "word".into(), ttl_ms: None });
    }

    #[test]
    fn what_is_not_understood_says_so() {
        assert!(parse("set alice").unwrap_err().contains("help"));
        assert!(parse("touch alice 0").unwrap_err().contains("time to live"));
        assert!(parse("incr ip many").unwrap_err().contains("whole number"));
    }
}
