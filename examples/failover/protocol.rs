//! What a node process and the demo say to each other: JSON lines on stdin and stdout.
//!
//! The demo asks, and each answer carries the number of its question, because a node serves many clients at once. What
//! nobody asked for (an event of the cluster, an acknowledgement by a quorum, a pause of the process) comes as a report of
//! its own.
//!
//! # Invariants
//! * A write's answer names its event and its place in the order, which is all the ledger judges by.

use serde::{Deserialize, Serialize};

use crate::counters::Repaired;
use crate::support::protocol::{Contexts, Dot, Stamp};

/// A question and its number.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub(crate) struct Asked {
    pub(crate) id: u64,
    pub(crate) question: Question,
}

/// What the demo asks of a node.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Question {
    Serve(Box<Request>),
    /// Send no further clients to a region, or send them again.
    Avoid {
        region: String,
        avoid: bool,
    },
    /// A region that the router here has named served a client.
    Praise {
        region: String,
    },
    /// Hand everything over and refuse further writes.
    Drain {
        within_ms: u64,
    },
    /// What was seen here.
    Contexts,
    /// Answer as soon as everything in `target` was seen here.
    Reach {
        target: Contexts,
    },
    /// How the cluster looks from here, and what this node counted.
    View,
    /// Compare all copies with all others, again and again until they are equal.
    Compare {
        within_ms: u64,
    },
    /// Every visible key and value, and a digest of what was seen.
    Dump,
    /// End in an orderly way.
    Quit,
}

/// A client's request: read your session, then write something.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub(crate) struct Request {
    /// The region the client is near.
    pub(crate) home: String,
    /// The client's session, which is read.
    pub(crate) session: String,
    /// What the client has written or seen before; the node waits a little until it has that, too.
    pub(crate) token: driftless::Token,
    /// The key that is written.
    pub(crate) key: String,
    /// What is written; nothing deletes the key.
    pub(crate) value: Option<u64>,
    /// The region that has just failed this client, if one did.
    pub(crate) failed: Option<String>,
    /// When the client gives up, in Unix milliseconds. A node that comes to it later does nothing.
    pub(crate) until_ms: u64,
}

/// What a node tells the demo.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Report {
    Answer {
        id: u64,
        answer: Answer,
    },
    /// The cluster changed, as this node sees it.
    Saw(Saw),
    /// The router of this node sends clients near a region to another one than before, or nowhere.
    Sends {
        home: String,
        to: Option<String>,
        at_ms: u64,
    },
    /// A write reached a quorum of replicas.
    Acked {
        dot: Dot,
    },
    /// This process stood still until now: the machine is busy, or it was stopped.
    Paused {
        ms: u64,
        at_ms: u64,
    },
}

/// An answer to a question.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Answer {
    /// To no question: the replica has joined (or founded) the cluster.
    Ready {
        replica: u64,
    },
    Served(Box<Served>),
    /// Nothing was written.
    Refused {
        reason: String,
    },
    Done,
    Contexts(Box<Contexts>),
    View(View),
    /// So many copies were found equal to another node's, of so many.
    Compared {
        verified: usize,
        of: usize,
    },
    Dump(Box<Dump>),
    /// What was asked could not be done.
    Failed {
        reason: String,
    },
}

/// A request that was served.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub(crate) struct Served {
    /// Whether this node had everything the token names.
    pub(crate) covered: bool,
    /// What the session held.
    pub(crate) session: Option<u64>,
    pub(crate) dot: Dot,
    pub(crate) stamp: Stamp,
    /// What the client has written or seen by now.
    pub(crate) token: driftless::Token,
    /// Where the router of this node sends the client next, and then in turn if that fails.
    pub(crate) route: Vec<String>,
}

/// A change of the cluster, as one node sees it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Saw {
    pub(crate) what: What,
    /// The node it is about, by its identity; nothing where it is about the whole view.
    pub(crate) node: Option<String>,
    /// The running copy it is about.
    pub(crate) replica: Option<u64>,
    /// When, in Unix milliseconds.
    pub(crate) at_ms: u64,
}

/// What changed.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum What {
    Up,
    Suspect,
    Unreachable,
    LinkDown,
    Isolated,
    NotIsolated,
    MemberJoined,
    MemberRemoved,
    /// This replica itself was removed: it refuses writes from now on.
    Fenced,
    /// Another process has the identity of this one.
    Twin,
}

/// How the cluster looks from one node, and what that node counted.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub(crate) struct View {
    /// Members, this one included.
    pub(crate) members: usize,
    /// Members that can be reached.
    pub(crate) up: usize,
    /// What repair has counted here.
    pub(crate) repaired: Repaired,
}

/// Everything a node shows.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Dump {
    pub(crate) digest: u64,
    pub(crate) cells: Vec<(String, u64)>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_survive_a_line_of_json() {
        let request = Request {
            home: "sa-east".to_owned(),
            session: "s:1".to_owned(),
            token: driftless::Token::new(),
            key: "cart:1".to_owned(),
            value: Some(u64::MAX),
            failed: None,
            until_ms: 7,
        };
        let asked = Asked { id: 3, question: Question::Serve(Box::new(request)) };
        let line = serde_json::to_string(&asked).unwrap();
        assert_eq!(serde_json::from_str::<Asked>(&line).unwrap(), asked);
        let served = Served {
            covered: true,
            session: None,
            dot: Dot { partition: 1, replica: u64::MAX, seq: 2 },
            stamp: Stamp { hlc: 1 << 60, replica: 9 },
            token: driftless::Token::new(),
            route: vec!["us-east".to_owned()],
        };
        let saw = Saw { what: What::LinkDown, node: Some("n".to_owned()), replica: Some(1), at_ms: 9 };
        for report in [Report::Answer { id: 1, answer: Answer::Served(Box::new(served)) }, Report::Saw(saw)] {
            let line = serde_json::to_string(&report).unwrap();
            assert_eq!(serde_json::from_str::<Report>(&line).unwrap(), report);
        }
    }
}
