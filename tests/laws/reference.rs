//! Our types against those of the `crdts` crate, operation for operation.

use bytes::Bytes;
use crdts::{CmRDT, CvRDT, LWWReg, Orswot, PNCounter};
use driftless::clock::Stamp;
use proptest::prelude::*;

use crate::replica::{FOREVER, Replica, b, member};

#[derive(Clone, Debug)]
enum Act {
    Add(usize, u64),
    Remove(usize, u64),
    Merge(usize, usize),
}

/// Merges what one site has into another, of ours and of theirs.
fn merge<T: CvRDT + Clone>((ours, theirs): (&mut [Replica; 3], &mut [T; 3]), at: usize, from: usize) {
    let (mail, state) = (ours[from].batch(&ours[at].ctx()), theirs[from].clone());
    ours[at].deliver(&mail);
    theirs[at].merge(state);
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let act = prop_oneof![
        (0..3_usize, 0..4_u64).prop_map(|(at, m)| Act::Add(at, m)),
        (0..3_usize, 0..4_u64).prop_map(|(at, m)| Act::Remove(at, m)),
        (0..3_usize, 0..3_usize).prop_map(|(at, from)| Act::Merge(at, from)),
    ];
    prop::collection::vec(act, 0..40)
}

fn trio() -> [Replica; 3] {
    [1, 2, 3].map(|id| Replica::new(id, &[1, 2, 3]))
}

proptest! {
    #[test]
    fn our_set_is_the_orswot(acts in acts()) {
        let (mut ours, mut theirs): (_, [Orswot<u64, u64>; 3]) = (trio(), Default::default());
        for act in acts {
            match act {
                Act::Add(at, m) => {
                    ours[at].put("m", member(&m.to_string()), &Bytes::new(), FOREVER);
                    let op = theirs[at].add(m, theirs[at].read_ctx().derive_add_ctx(at as u64));
                    theirs[at].apply(op);
                }
                Act::Remove(at, m) => {
                    let seen = theirs[at].contains(&m);
                    prop_assert_eq!(ours[at].remove("m", &member(&m.to_string())).is_some(), seen.val);
                    if seen.val {
                        let op = theirs[at].rm(m, seen.derive_rm_ctx());
                        theirs[at].apply(op);
                    }
                }
                Act::Merge(at, from) => merge((&mut ours, &mut theirs), at, from),
            }
            for (mine, other) in ours.iter().zip(&theirs) {
                for m in 0..4 {
                    let here = mine.read("m", &member(&m.to_string()), 0).is_some();
                    prop_assert_eq!(here, other.contains(&m).val);
                }
            }
        }
    }

    #[test]
    fn our_counter_without_reset_is_the_pn_counter(acts in acts()) {
        let (mut ours, mut theirs): (_, [PNCounter<u64>; 3]) = (trio(), Default::default());
        for act in acts {
            match act {
                Act::Add(at, by) => {
                    ours[at].increment("m", "n", by as i64, FOREVER);
                    let op = theirs[at].inc_many(at as u64, by);
                    theirs[at].apply(op);
                }
                Act::Remove(at, by) => {
                    ours[at].increment("m", "n", -(by as i64), FOREVER);
                    let op = theirs[at].dec_many(at as u64, by);
                    theirs[at].apply(op);
                }
                Act::Merge(at, from) => merge((&mut ours, &mut theirs), at, from),
            }
            for (mine, other) in ours.iter().zip(&theirs) {
                prop_assert_eq!(other.read(), mine.count("m", "n", 0).into());
            }
        }
    }

    #[test]
    fn our_register_is_the_lww_register(acts in acts()) {
        let mut ours = trio();
        let mut theirs: [LWWReg<Option<u64>, Stamp>; 3] = Default::default();
        for act in acts {
            match act {
                Act::Add(at, v) => {
                    let stamp = ours[at].set("k", &b(&v.to_string()), FOREVER).stamp;
                    theirs[at].update(Some(v), stamp);
                }
                Act::Remove(at, _) => {
                    let stamp = ours[at].delete("k").stamp;
                    theirs[at].update(None, stamp);
                }
                Act::Merge(at, from) => merge((&mut ours, &mut theirs), at, from),
            }
            for (mine, other) in ours.iter().zip(&theirs) {
                let want = other.val.map(|v| b(&v.to_string()));
                prop_assert_eq!(mine.get("k", 0), want);
            }
        }
    }
}
