//! What a client carries between regions: which events it has written or seen.
//!
//! A token is a version vector of the partitions it touched (Terry et al., *Session Guarantees for
//! Weakly Consistent Replicated Data*, PDIS 1994). A region that *covers* it shows its bearer
//! everything they wrote and nothing older than what they saw.
//!
//! # Invariants
//! * Tokens only grow; merging is associative, commutative and idempotent.
//! * A token names events, not data: it grants nothing.
//!
//! Not here: signing. A token from a client is only as trustworthy as its way here; a forged one
//! makes its bearer wait for what never happened, and nobody else.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::crdt::{Ctx, Seen};
use crate::id::{PartitionId, ReplicaId};
use crate::store::Store;

use super::receipt::Receipt;

/// Which events its bearer has written or seen. Serialise it into a cookie or a header.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(from = "Form", into = "Form")]
pub struct Token {
    parts: BTreeMap<PartitionId, Ctx>,
}

/// The replica, its base, and the ranges above it.
type SeenForm = (u64, u64, Vec<(u64, u64)>);

/// How a token is written down: per partition, per replica.
#[derive(Clone, Serialize, Deserialize)]
struct Form(Vec<(u16, Vec<SeenForm>)>);

impl Token {
    /// Returns a token that every region covers.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a write, so that its writer will read it.
    pub fn observe(&mut self, receipt: &Receipt) {
        self.parts.entry(receipt.partition()).or_default().add(receipt.dot());
    }

    /// Adds everything another token names.
    pub fn merge(&mut self, other: &Self) {
        for (partition, ctx) in &other.parts {
            self.parts.entry(*partition).or_default().join(ctx);
        }
    }

    /// Returns how many partitions it names.
    #[must_use]
    pub fn partitions(&self) -> usize {
        self.parts.len()
    }

    /// Names what was seen, but for what is folded: every member has that.
    pub(super) fn of(partition: PartitionId, ctx: &Ctx) -> Self {
        Self { parts: BTreeMap::from([(partition, ctx.without_marks())]) }
    }

    pub(super) fn is_covered_by(&self, store: &Store) -> bool {
        self.parts.iter().all(|(id, ctx)| store.read(*id).is_some_and(|p| p.covers(ctx)))
    }
}

impl From<Form> for Token {
    fn from(form: Form) -> Self {
        let ctx_of = |replicas: Vec<SeenForm>| {
            let mut ctx = Ctx::default();
            for (replica, base, above) in replicas {
                ctx.add_seen(ReplicaId(replica), &Seen::new(base, &above));
            }
            ctx
        };
        Self { parts: form.0.into_iter().map(|(id, replicas)| (PartitionId(id), ctx_of(replicas))).collect() }
    }
}

impl From<Token> for Form {
    fn from(token: Token) -> Self {
        let seen = |ctx: &Ctx| ctx.iter().map(|(r, seen)| (r.0, seen.base(), seen.above().to_vec())).collect();
        Self(token.parts.iter().map(|(id, ctx)| (id.0, seen(ctx))).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crdt::{Dot, NEVER};
    use crate::store::{Family, Gate, Intent, KeyRef};
    use bytes::Bytes;

    fn token(partition: u16, replica: u64, seq: u64) -> Token {
        let mut ctx = Ctx::default();
        ctx.add(Dot { replica: ReplicaId(replica), seq });
        Token::of(PartitionId(partition), &ctx)
    }

    #[test]
    fn a_token_survives_being_written_down() {
        let mut token = token(3, 7, 9);
        token.merge(&self::token(3, 7, 1));
        token.merge(&self::token(60, 8, 2));
        let bytes = rmp_serde::to_vec(&token).unwrap();
        assert!(bytes.len() < 64, "tens of bytes, not {}", bytes.len());
        assert_eq!(rmp_serde::from_slice::<Token>(&bytes).unwrap(), token);
    }

    #[test]
    fn a_lost_write_is_missed_also_where_its_replica_was_folded_and_presumed_where_that_is_not_remembered() {
        let store = Store::new(ReplicaId(9), crate::config::Config::wan("x", "127.0.0.1:0").store());
        let space = store.spaces().open("x", Family::Register).unwrap();
        store.set_gate(Gate::Open);
        let at = KeyRef::new(&space, b"key");
        let partition = store.place(at.hash).0;
        let intent = Intent { wall_ms: 1, value_len: None };
        store.write(&at, intent, |p, tick| p.set(&at, Bytes::new(), NEVER, tick)).unwrap();
        store.lock(PartitionId(partition)).unwrap().fold(ReplicaId(9));
        let elsewhere = ReplicaId(1 << 60);
        let (came, lost, unknown) = (token(partition, 9, 1), token(partition, 9, 2), token(partition, elsewhere.0, 2));
        assert!(came.is_covered_by(&store) && !lost.is_covered_by(&store) && !unknown.is_covered_by(&store));
        store.lock(PartitionId(partition)).unwrap().fold(elsewhere);
        assert!(unknown.is_covered_by(&store), "it was folded elsewhere");
    }

    #[test]
    fn merging_twice_changes_nothing() {
        let (a, b) = (token(1, 1, 1), token(1, 1, 2));
        let mut ab = a.clone();
        ab.merge(&b);
        let mut again = b;
        again.merge(&a);
        again.merge(&ab);
        assert_eq!(ab, again);
    }
}
