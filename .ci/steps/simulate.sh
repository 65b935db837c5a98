# Whole clusters in virtual time: the same 1,000 seeds every time, 2,000 that only this commit has, 200 over QUIC, and
# whether the checks see mistakes that are planted. Each of the four counts as one test. Any of them is run by hand as it
# stands here; `just nightly` runs a hundred times as many seeds and plants every fault.
#
# Assertions and overflow checks are on: a broken invariant inside a node is a failure of its seed. So the build is one
# of its own.
export CARGO_PROFILE_RELEASE_DEBUG_ASSERTIONS=true CARGO_PROFILE_RELEASE_OVERFLOW_CHECKS=true
target=${CARGO_TARGET_DIR:-target}
figures=$target/ci/simulate
mkdir -p "$figures"

# Faults that a few hundred seeds see: of the clock, the types, the store, the wire, replication, the node, the members, the edges, failing over.
clock=CounterWraps,TieUnbroken
types=LosersDropped,RemovalIgnored
store=StaleBatchAccepted,HoleNotInherited
wire=RunCutShort,WrongDictionary
nodes=NeverRelays,HalfIsQuorum,ZombieAccepted,ReplicaIdReused,FloorForgotten,FoldsEarly,TwinPresumed
edges=EdgeIsDonor,EdgeCounts
failover=QuorumOfOne,AccusedForGood,LeavesAtOnce,NotReissued,RepairWithoutContext
fast_faults=${FAST_FAULTS:-$clock,$types,$store,$wire,$nodes,$edges,$failover}
fast_seeds=2000
# The first 12 digits of the commit, as a number: every commit looks where no other has.
commit=$(git rev-parse HEAD 2>/dev/null) || commit=$(find src -name '*.rs' -print0 | sort -z | xargs -0 cat | sha256sum)
from=$((16#${commit:0:12}))

source .ci/gate.sh
simulate=(cargo run --locked --release --no-default-features --features sim --example simulate --)

CARGO_TARGET_DIR=$target/checked gate "1,000 seeds" "${simulate[@]}" --seeds 1000 --json "$figures/fixed.json"
CARGO_TARGET_DIR=$target/checked gate "2,000 seeds of this commit" \
    "${simulate[@]}" --seeds 2000 --from "$from" --json "$figures/commit.json"
CARGO_TARGET_DIR=$target/checked gate "200 seeds over QUIC" \
    cargo run --locked --release --features sim --example simulate -- \
    --config quic --seeds 200 --json "$figures/quic.json"
RUSTFLAGS="--cfg planted" CARGO_TARGET_DIR=$target/planted gate "planted faults" \
    "${simulate[@]}" --planted "$fast_faults" --seeds "$fast_seeds" --json "$figures/planted.json"
exit "$status"
