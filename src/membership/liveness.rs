//! Who can be reached: silence is suspicion, and a suspicion that others share is a verdict.
//!
//! Every node hears every other one directly and says in each beat whom it suspects. A member that is silent here is
//! *suspected*; it is *unreachable* once at least half of those heard of lately suspect it, too, and it is behind a *cut*
//! when they go on hearing it. A node that hears nobody is *isolated*: it cannot tell who is gone, so it declares nobody.
//! Of two nodes neither has anybody to ask: there a longer silence has to do.
//!
//! Quorums of suspicions are from Lakshman and Malik's *Cassandra* (2010) and from Lifeguard (Dadgar, Phillips, Currey,
//! 2018); the measurements behind the times are in `docs/design.md`.
//!
//! # Invariants
//! * Nothing here changes who is a member, and with it what may be forgotten: a false alarm costs a detour.
//! * Who is alone declares nobody, unless there is one other member only.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::clock::Mono;
use crate::id::ReplicaId;
use crate::probe::{planted, sometimes};
use crate::wire::SUSPECTS_MAX;

/// How much longer, in fifths of what makes it suspected, the only other member must be silent to count as unreachable:
/// about what a second opinion takes elsewhere.
const NOBODY_TO_ASK: u32 = 2;

/// What is known of whether a member can be reached, from best to worst.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub enum Reach {
    /// Heard of lately.
    #[default]
    Up,
    /// Silent here; what others hear is not known yet.
    Suspected,
    /// Silent here, heard elsewhere: the path between us is cut. Writes go through the others.
    Cut,
    /// Silent here and at half of those that can be heard.
    Unreachable,
}

/// A member that was heard of directly.
#[derive(Clone, Debug)]
pub struct Heard<'a> {
    /// The member.
    pub replica: ReplicaId,
    /// When, last.
    pub at: Mono,
    /// The silence after which it is suspected.
    pub patience: Duration,
    /// Whom it suspects; nothing while it has not said so, or does not know the members yet.
    pub suspects: Option<&'a BTreeSet<ReplicaId>>,
}

/// What changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Change {
    /// What is known of a member.
    Reach(ReplicaId, Reach),
    /// Whether anybody is heard at all.
    Isolated(bool),
}

/// What is remembered of a member.
#[derive(Clone, Debug)]
struct Place {
    /// It was heard of directly at some time.
    met: bool,
    heard_at: Mono,
    patience: Duration,
    reach: Reach,
    /// Since when it has been unreachable, if it is, not counting while nobody could be asked.
    gone_since: Option<Mono>,
    /// Who may vote on it, beside this node: who was a member when it went, itself included.
    electorate: BTreeSet<ReplicaId>,
    /// Since when others hear it that is silent here, if they do.
    disputed_since: Option<Mono>,
    /// It was told of this absence that too few agree on it.
    told: bool,
}

/// What those that can be asked say of a member.
#[derive(Clone, Copy, Debug)]
struct Poll {
    /// So many can be asked.
    of: usize,
    /// So many suspect it, too.
    agree: usize,
    /// There is no other member than it.
    only: bool,
}

/// The view of one node.
#[derive(Clone, Debug, Default)]
pub struct Liveness {
    places: BTreeMap<ReplicaId, Place>,
    isolated: bool,
    judged_at: Mono,
}

impl Liveness {
    /// Returns what is known of a member.
    #[must_use]
    pub fn of(&self, replica: ReplicaId) -> Option<Reach> {
        self.places.get(&replica).map(|place| place.reach)
    }

    /// Tells whether nobody of several members is heard.
    #[must_use]
    pub fn is_isolated(&self) -> bool {
        self.isolated
    }

    /// Returns whom the next beat names, at most [`SUSPECTS_MAX`].
    #[must_use]
    pub fn suspects(&self) -> BTreeSet<ReplicaId> {
        let silent = self.places.iter().filter(|(_, place)| place.reach != Reach::Up);
        silent.map(|(replica, _)| *replica).take(SUSPECTS_MAX).collect()
    }

    /// Returns who has been unreachable for so long without a break, at most [`SUSPECTS_MAX`]; of whom this node has never
    /// heard it does not judge that.
    #[must_use]
    pub fn gone_for(&self, now: Mono, long: Duration) -> BTreeSet<ReplicaId> {
        let gone = |place: &Place| place.met && place.gone_since.is_some_and(|since| now.since(since) >= long);
        let gone = self.places.iter().filter(|(_, place)| gone(place));
        gone.map(|(replica, _)| *replica).take(SUSPECTS_MAX).collect()
    }

    /// Returns who may vote on a member that is gone, beside this node: itself, and whoever was known here when it went.
    /// Who has joined since may have done so in one part of a cluster that is split, and nobody in the other knows of it;
    /// who has been removed or has begun anew since is missed, for it may have voted the other way.
    #[must_use]
    pub fn electorate(&self, gone: ReplicaId) -> BTreeSet<ReplicaId> {
        let place = self.places.get(&gone).filter(|place| place.gone_since.is_some());
        place.map(|place| place.electorate.clone()).unwrap_or_default()
    }

    /// Tells once for each absence that too few give up a member that is gone.
    pub fn tell_once(&mut self, gone: ReplicaId) -> bool {
        let place = self.places.get_mut(&gone).filter(|place| place.gone_since.is_some() && !place.told);
        place.map(|place| place.told = true).is_some()
    }

    /// Notes that a link to a member is up; whoever calls tells whom it concerns.
    pub fn up(&mut self, replica: ReplicaId, at: Mono) {
        self.heard(replica, at);
        if let Some(place) = self.places.get_mut(&replica).filter(|_| !planted!(AccusedForGood)) {
            place.reach = Reach::Up;
            place.gone_since = None;
        }
    }

    /// Notes when a member was heard of.
    pub fn heard(&mut self, replica: ReplicaId, at: Mono) {
        if let Some(place) = self.places.get_mut(&replica) {
            place.heard_at = place.heard_at.max(at);
            place.met = true;
        }
    }

    /// Forgives a silence that was ours: nothing could be heard while our own tick was late.
    pub fn forgive(&mut self, late: Duration) {
        for place in self.places.values_mut() {
            place.heard_at = place.heard_at.plus(late);
            place.gone_since = place.gone_since.map(|since| since.plus(late));
        }
    }

    /// Judges all members but this one by what was heard of them; whoever is new has just been heard of. `patience` is
    /// how long the silence of one without a link may last.
    pub fn judge(
        &mut self,
        now: Mono,
        members: &BTreeSet<ReplicaId>,
        heard: &[Heard<'_>],
        patience: Duration,
    ) -> Vec<Change> {
        self.places.retain(|replica, _| members.contains(replica));
        for replica in members {
            self.places.entry(*replica).or_insert_with(|| Place::new(now, patience));
        }
        for one in heard {
            self.heard(one.replica, one.at);
            if let Some(place) = self.places.get_mut(&one.replica) {
                place.patience = one.patience;
            }
        }
        let is_fresh = |one: &&Heard<'_>| self.places.get(&one.replica).is_some_and(|place| !place.is_silent(now));
        let fresh: Vec<&BTreeSet<ReplicaId>> = heard.iter().filter(is_fresh).filter_map(|one| one.suspects).collect();
        let (of, only) = (fresh.len(), self.places.len() == 1);
        let idle = if of == 0 && !only { now.since(self.judged_at) } else { Duration::ZERO };
        self.judged_at = now;
        let mut changes = Vec::new();
        for (replica, place) in &mut self.places {
            let agree = fresh.iter().filter(|suspects| suspects.contains(replica)).count();
            place.gone_since = place.gone_since.map(|since| since.plus(idle));
            let reach = place.judge(now, Poll { of, agree, only });
            if reach != place.reach {
                note(place.reach, reach);
                place.reach = reach;
                place.gone_since = (reach == Reach::Unreachable).then_some(now);
                place.told = false;
                place.electorate = place.gone_since.map(|_| members.clone()).unwrap_or_default();
                changes.push(Change::Reach(*replica, reach));
            }
        }
        let isolated = !only && !self.places.is_empty() && self.places.values().all(|place| place.is_silent(now));
        if isolated != self.isolated {
            sometimes!(NobodyHeard, if isolated);
            self.isolated = isolated;
            changes.push(Change::Isolated(isolated));
        }
        changes
    }
}

impl Place {
    fn new(now: Mono, patience: Duration) -> Self {
        let (gone_since, electorate, disputed_since) = (None, BTreeSet::new(), None);
        let (met, told, reach, heard_at) = (false, false, Reach::Up, now);
        Self { met, heard_at, patience, reach, gone_since, electorate, disputed_since, told }
    }

    fn is_silent(&self, now: Mono) -> bool {
        now.since(self.heard_at) >= self.patience
    }

    /// Judges one member by its silence and by what others say. Of whom others cannot be asked nothing new is said but
    /// that it is silent.
    fn judge(&mut self, now: Mono, poll: Poll) -> Reach {
        let silence = now.since(self.heard_at);
        if self.reach == Reach::Unreachable && planted!(AccusedForGood) {
            return Reach::Unreachable;
        }
        if silence < self.patience {
            self.disputed_since = None;
            return Reach::Up;
        }
        let no_news = self.reach.max(Reach::Suspected);
        if poll.only {
            let long = silence >= self.patience + self.patience * NOBODY_TO_ASK / 5;
            return if long { Reach::Unreachable } else { no_news };
        }
        if poll.of == 0 && !planted!(IsolatedDeclares) {
            return no_news;
        }
        if poll.agree * 2 >= poll.of || planted!(QuorumOfOne) {
            self.disputed_since = None;
            return Reach::Unreachable;
        }
        let disputed = now.since(*self.disputed_since.get_or_insert(now));
        let settled = self.reach != Reach::Unreachable || disputed >= self.patience;
        if silence >= self.patience * 2 && settled { Reach::Cut } else { no_news }
    }
}

fn note(before: Reach, after: Reach) {
    sometimes!(PeerSuspected, if before == Reach::Up);
    sometimes!(PeerHeardOfAgain, if after == Reach::Up);
    sometimes!(SuspicionShared, if after == Reach::Unreachable);
    sometimes!(SuspicionNotShared, if after == Reach::Cut);
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_millis(500);

    fn at(ms: u64) -> Mono {
        Mono(ms * 1_000_000)
    }

    fn ids(ids: &[u64]) -> BTreeSet<ReplicaId> {
        ids.iter().map(|id| ReplicaId(*id)).collect()
    }

    /// Judges at `now`; a member is heard at a time, and suspects some.
    fn judge(liveness: &mut Liveness, now: u64, members: &[u64], heard: &[(u64, u64, &[u64])]) -> Vec<Change> {
        let suspects: Vec<BTreeSet<ReplicaId>> = heard.iter().map(|(.., suspects)| ids(suspects)).collect();
        let heard: Vec<Heard<'_>> = heard
            .iter()
            .zip(&suspects)
            .map(|((id, ms, _), suspects)| Heard {
                replica: ReplicaId(*id),
                at: at(*ms),
                patience: PATIENCE,
                suspects: Some(suspects),
            })
            .collect();
        liveness.judge(at(now), &ids(members), &heard, PATIENCE)
    }

    fn reached(id: u64, reach: Reach) -> Change {
        Change::Reach(ReplicaId(id), reach)
    }

    #[test]
    fn who_is_silent_is_suspected_and_unreachable_when_half_of_the_others_agree() {
        let mut here = Liveness::default();
        let members = [2, 3, 4];
        assert!(judge(&mut here, 0, &members, &[(2, 0, &[]), (3, 0, &[]), (4, 0, &[])]).is_empty());
        let silent = [(2, 0, &[][..]), (3, 499, &[]), (4, 499, &[])];
        assert!(judge(&mut here, 499, &members, &silent).is_empty());
        assert_eq!(judge(&mut here, 500, &members, &silent), [reached(2, Reach::Suspected)]);
        assert_eq!(here.suspects(), ids(&[2]));
        assert!(judge(&mut here, 550, &members, &silent).is_empty(), "once");
        let shared = [(2, 0, &[][..]), (3, 600, &[2]), (4, 590, &[])];
        assert_eq!(judge(&mut here, 600, &members, &shared), [reached(2, Reach::Unreachable)], "one of two is half");
        let again = [(2, 700, &[][..]), (3, 700, &[2]), (4, 700, &[2])];
        assert_eq!(judge(&mut here, 700, &members, &again), [reached(2, Reach::Up)], "what is heard here counts");
        assert!(here.suspects().is_empty());
    }

    #[test]
    fn who_is_heard_elsewhere_is_behind_a_cut() {
        let mut here = Liveness::default();
        let members = [2, 3, 4];
        judge(&mut here, 0, &members, &[(2, 0, &[])]);
        let heard = |ms| [(3, ms, &[][..]), (4, ms, &[])];
        assert_eq!(judge(&mut here, 600, &members, &heard(600)), [reached(2, Reach::Suspected)]);
        assert!(judge(&mut here, 999, &members, &heard(999)).is_empty());
        assert_eq!(judge(&mut here, 1_000, &members, &heard(1_000)), [reached(2, Reach::Cut)]);
        let both = [(3, 1_100, &[2][..]), (4, 1_100, &[2])];
        assert_eq!(judge(&mut here, 1_100, &members, &both), [reached(2, Reach::Unreachable)]);
    }

    #[test]
    fn who_hears_nobody_is_isolated_and_declares_nobody() {
        let mut here = Liveness::default();
        let members = [2, 3, 4];
        judge(&mut here, 0, &members, &[(2, 0, &[]), (3, 100, &[2]), (4, 100, &[2])]);
        let changes = judge(&mut here, 700, &members, &[]);
        let suspected = [2, 3, 4].map(|id| reached(id, Reach::Suspected));
        assert_eq!(changes, [&suspected[..], &[Change::Isolated(true)]].concat());
        assert!(judge(&mut here, 60_000, &members, &[]).is_empty(), "however long");
        let back = judge(&mut here, 60_100, &members, &[(3, 60_100, &[])]);
        assert!(back.contains(&reached(3, Reach::Up)) && back.contains(&Change::Isolated(false)));
        assert!(!here.is_isolated());
    }

    #[test]
    fn of_two_members_the_other_one_is_unreachable_after_a_longer_silence() {
        let mut here = Liveness::default();
        judge(&mut here, 0, &[2], &[(2, 0, &[])]);
        assert_eq!(judge(&mut here, 500, &[2], &[]), [reached(2, Reach::Suspected)]);
        assert!(judge(&mut here, 699, &[2], &[]).is_empty());
        assert_eq!(judge(&mut here, 700, &[2], &[]), [reached(2, Reach::Unreachable)]);
        assert!(!here.is_isolated());
    }

    #[test]
    fn half_must_agree_and_who_has_not_spoken_yet_is_not_asked() {
        let members = [2, 3, 4, 5];
        for (agree, gone) in [(1, false), (2, true), (3, true)] {
            let mut here = Liveness::default();
            let heard = |ms| (3..6).map(|id| (id, ms, if id < 3 + agree { &[2][..] } else { &[] })).collect::<Vec<_>>();
            judge(&mut here, 0, &members, &[(2, 0, &[]), (3, 0, &[]), (4, 0, &[]), (5, 0, &[])]);
            judge(&mut here, 600, &members, &heard(600));
            let wanted = if gone { Reach::Unreachable } else { Reach::Suspected };
            assert_eq!(here.of(ReplicaId(2)), Some(wanted), "{agree} of 3");
        }
        let mut here = Liveness::default();
        let silent =
            |replica, suspects| Heard { replica: ReplicaId(replica), at: at(600), patience: PATIENCE, suspects };
        judge(&mut here, 0, &members, &[(2, 0, &[])]);
        let (suspects, nobody) = (ids(&[2]), ids(&[]));
        let heard = [silent(3, Some(&suspects)), silent(4, None), silent(5, None)];
        let changes = here.judge(at(600), &ids(&members), &heard, PATIENCE);
        assert_eq!(changes, [reached(2, Reach::Unreachable)], "one of one");
        let again =
            [silent(3, Some(&nobody)), silent(4, None), silent(5, None)].map(|one| Heard { at: at(700), ..one });
        assert!(here.judge(at(700), &ids(&members), &again, PATIENCE).is_empty(), "nobody is taken back at once");
        let later = again.map(|one| Heard { at: at(1_300), ..one });
        assert_eq!(here.judge(at(1_300), &ids(&members), &later, PATIENCE), [reached(2, Reach::Cut)]);
    }

    #[test]
    fn who_joined_while_a_member_was_gone_has_no_say_in_that() {
        let mut here = Liveness::default();
        judge(&mut here, 0, &[2, 3], &[(2, 0, &[]), (3, 0, &[])]);
        judge(&mut here, 700, &[2, 3], &[(3, 700, &[2])]);
        judge(&mut here, 800, &[2, 3, 4], &[(3, 800, &[2]), (4, 800, &[2])]);
        assert_eq!(here.electorate(ReplicaId(2)), ids(&[2, 3]));
        judge(&mut here, 900, &[2, 4], &[(4, 900, &[2])]);
        assert_eq!(here.electorate(ReplicaId(2)), ids(&[2, 3]), "who was removed since is missed");
        let mut newcomer = Liveness::default();
        judge(&mut newcomer, 0, &[2, 3], &[(3, 0, &[])]);
        judge(&mut newcomer, 700, &[2, 3], &[(3, 700, &[2])]);
        assert_eq!(newcomer.of(ReplicaId(2)), Some(Reach::Unreachable));
        assert!(newcomer.gone_for(at(9_000), PATIENCE).is_empty(), "never heard, so not missed");
    }

    #[test]
    fn a_late_tick_of_ours_is_no_silence_of_theirs_and_who_is_removed_is_forgotten() {
        let mut here = Liveness::default();
        judge(&mut here, 0, &[2, 3], &[(2, 0, &[]), (3, 0, &[])]);
        here.forgive(Duration::from_secs(9));
        assert!(judge(&mut here, 9_400, &[2, 3], &[(2, 0, &[])]).is_empty());
        assert_eq!(here.of(ReplicaId(3)), Some(Reach::Up));
        judge(&mut here, 20_000, &[2], &[(2, 20_000, &[])]);
        assert_eq!((here.of(ReplicaId(3)), here.suspects()), (None, ids(&[])));
    }

    #[test]
    fn who_is_gone_is_gone_from_when_others_agree_until_it_is_heard_or_nobody_is() {
        let mut here = Liveness::default();
        let members = [2, 3];
        let gone = |here: &Liveness, now| here.gone_for(at(now), Duration::from_millis(1_000));
        judge(&mut here, 0, &members, &[(2, 0, &[]), (3, 0, &[])]);
        judge(&mut here, 600, &members, &[(3, 600, &[])]);
        judge(&mut here, 700, &members, &[(3, 700, &[2])]);
        judge(&mut here, 1_600, &members, &[(3, 1_600, &[2])]);
        assert!(gone(&here, 1_699).is_empty());
        assert_eq!(gone(&here, 1_700), ids(&[2]));
        here.forgive(Duration::from_millis(500));
        assert!(gone(&here, 2_199).is_empty() && gone(&here, 2_200) == ids(&[2]), "what was ours does not count");
        judge(&mut here, 3_000, &members, &[]);
        judge(&mut here, 8_000, &members, &[]);
        assert!(here.is_isolated() && here.of(ReplicaId(2)) == Some(Reach::Unreachable));
        assert!(gone(&here, 8_599).is_empty() && gone(&here, 8_600) == ids(&[2]), "alone the time stands still");
    }

    #[test]
    fn a_beat_names_no_more_than_fit_a_datagram() {
        let mut here = Liveness::default();
        let members: Vec<u64> = (2..100).collect();
        judge(&mut here, 0, &members, &[]);
        judge(&mut here, 1_000, &members, &[(99, 1_000, &[])]);
        assert_eq!(here.suspects().len(), SUSPECTS_MAX);
    }
}
