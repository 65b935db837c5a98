//! What the shell (or the simulator) tells the node: a closed set.
//!
//! The shell adds nothing of its own: it frames bytes, proves identities and names links. What a
//! message means, when to dial again and whom to close is the node's business.
//!
//! # Invariants
//! * For one link: exactly one [`Input::LinkUp`], then any number of the others, then exactly one
//!   [`Input::LinkDown`], and nothing of that link after it.
//! * Every `Output::Dial` is answered by exactly one `LinkUp` with that slot or one
//!   [`Input::DialFailed`], unless the shell stops first.
//! * Bytes in an input were checked against the frame limit, and nothing else.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;

use crate::clock::Mono;
use crate::id::{KeyspaceId, NodeId, RegionId, ReplicaId};
use crate::node::fetch::FetchId;
use crate::node::levels::{Level, Mark, WaitId};
use crate::node::output::{DialError, LinkEnd};
use crate::node::repair::RepairId;

/// One connection to a peer. The shell makes it; it is unique within the process.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct LinkId(pub u64);

/// A place of the node's list of whom to dial: the configured addresses in their order, then members to whom none leads.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct PeerSlot(pub usize);

/// Who the peer is, as its certificate proves it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PeerIdentity {
    /// The node the certificate names.
    pub node: NodeId,
    /// The region the certificate names.
    pub region: RegionId,
    /// When the certificate expires, in Unix milliseconds.
    pub expires_ms: u64,
}

/// Something happened outside of the node.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Input {
    /// A link is up: the peer proved its identity, hellos may be exchanged on the control stream.
    LinkUp {
        /// The new link.
        link: LinkId,
        /// Who the peer is.
        peer: PeerIdentity,
        /// The slot that was dialled; `None` when the peer dialled this node.
        dialled: Option<PeerSlot>,
        /// How long the peer may have held the link for up already. Who dials does so first, and the other side only when
        /// the dialler's last packet has come through: nothing where this node dialled, and how long the handshake took
        /// where the peer did.
        after: Duration,
    },
    /// One whole message from the control stream. Messages arrive in the order they were sent.
    Control {
        /// The link it came on.
        link: LinkId,
        /// The message.
        bytes: Bytes,
    },
    /// One whole frame from a log stream. Express frames may overtake others.
    Log {
        /// The link it came on.
        link: LinkId,
        /// The frame.
        bytes: Bytes,
    },
    /// One heartbeat datagram. Datagrams get lost.
    Beat {
        /// The link it came on.
        link: LinkId,
        /// The datagram.
        bytes: Bytes,
    },
    /// Bytes of `Output::Log` were handed to QUIC, so the outbox may hand out as many more.
    Drained {
        /// The link they left on.
        link: LinkId,
        /// How many, length prefixes not counted.
        bytes: usize,
    },
    /// A link has ended. Nothing of it follows.
    LinkDown {
        /// The link.
        link: LinkId,
        /// Why it ended.
        reason: LinkEnd,
    },
    /// A dial came to nothing.
    DialFailed {
        /// The slot that was dialled.
        slot: PeerSlot,
        /// Why.
        reason: DialError,
    },
    /// Somebody dialled this node and was not let in, or did not want to come in. It is told so
    /// that an operator can see it; under a flood the shell reports only some of them.
    AcceptFailed {
        /// The address it came from. Nothing else about it is known.
        from: SocketAddr,
        /// Why.
        reason: DialError,
    },
    /// Local writes marked partitions dirty.
    Written,
    /// Somebody waits for a write to reach a level.
    Wait {
        /// Names the wait in `Output::Resolved`.
        id: WaitId,
        /// The write.
        mark: Mark,
        /// How far it must come.
        level: Level,
        /// When to give up; `None` waits for ever.
        deadline: Option<Mono>,
    },
    /// Nobody waits any more.
    CancelWait {
        /// The wait, or the read.
        id: WaitId,
    },
    /// Somebody reads a register at a level. [`Output::Resolved`](crate::node::Output::Resolved) tells when what those hold who
    /// count for it is here.
    Read {
        /// Names the read in the output; no wait has this name.
        id: WaitId,
        /// The keyspace, of registers.
        keyspace: KeyspaceId,
        /// The key.
        key: Bytes,
        /// Who must have answered.
        level: Level,
        /// When to give up; `None` asks for ever.
        deadline: Option<Mono>,
    },
    /// Somebody at an edge wants a register that is not here. [`Output::Fetched`](crate::node::Output::Fetched) tells when
    /// what there is of it is.
    Fetch {
        /// Names the fetch in the output.
        id: FetchId,
        /// The keyspace, of registers.
        keyspace: KeyspaceId,
        /// The key.
        key: Bytes,
    },
    /// An operator removes a replica that will not come back, so that nobody waits for its reports any more. It is for
    /// ever: every node hears of it, the replica is refused wherever it shows up and told so. Its process comes back when
    /// it is told to ([`Input::Rejoin`]) or started again; in the latter case what only it had is lost.
    Remove {
        /// The replica, also one that was never heard of, or this node's own.
        replica: ReplicaId,
    },
    /// This process, whose replica was removed, may go on as another replica, whoever removed it. Nothing happens
    /// otherwise.
    Rejoin,
    /// Accept no writes from now on and hand everything over. `Event::Drained` or `Event::Left` tells when that is done. Who is
    /// leaving and is told to stay goes on leaving, until [`Input::Resume`].
    Drain {
        /// Give up this node's place at the end.
        leave: bool,
    },
    /// Compare all partitions with all peers now. [`Output::Repaired`](crate::node::Output::Repaired) tells what came of it.
    Repair {
        /// Names the comparison; the caller makes it.
        id: RepairId,
        /// For how long at most.
        within: Duration,
    },
    /// Accept writes again. Nothing happens once the place is given up.
    Resume,
    /// Accept writes from now on: a standby takes over.
    Promote,
    /// Accept no writes from now on and stand by, until it is promoted or takes over as configured.
    Demote,
    /// The service around this node is so busy, or says so no longer. Members hear of it with the next beat.
    Load {
        /// In percent; more than 100 counts as 100.
        percent: Option<u8>,
    },
    /// This node proves itself with a certificate that expires then, in Unix milliseconds.
    Certified {
        /// When it expires.
        expires_ms: u64,
    },
    /// The deadline the node asked for has passed.
    Deadline,
    /// Flush, say goodbye, close all links.
    Shutdown,
}
