# What takes hours on an idle machine: many seeds that no other day has, the same over QUIC, every planted fault, ten
# thousand restarts, a million schedules of threads, and every mutation of the data model. Not among the default steps. Each of the six counts
# as one test; figures and logs go to ci/nightly of the target directory.
seeds=${NIGHTLY_SEEDS:-300000}
quic_seeds=${NIGHTLY_QUIC_SEEDS:-12000}
schedules=${NIGHTLY_SCHEDULES:-1000000}
# Days since 1970, a million seeds apart.
from=${NIGHTLY_FROM:-$(($(date +%s) / 86400 * 1000000))}
target=${CARGO_TARGET_DIR:-target}
figures=$target/ci/nightly
mkdir -p "$figures"

source .ci/gate.sh

gate "$seeds seeds" cargo run --locked --release --no-default-features --features sim --example simulate -- \
    --seeds "$seeds" --from "$from" --json "$figures/seeds.json"
gate "$quic_seeds seeds over QUIC" cargo run --locked --release --features sim --example simulate -- \
    --config quic --seeds "$quic_seeds" --from "$from" --json "$figures/quic.json"
RUSTFLAGS="--cfg planted" CARGO_TARGET_DIR=$target/planted gate "planted faults" \
    cargo run --locked --release --no-default-features --features sim --example simulate -- \
    --planted all --json "$figures/planted.json"
gate "10,000 restarts" cargo nextest run --locked --release --no-default-features --features sim --test incarnations
# Their own counts of tests stay in the log: each is one here.
quietly() {
    local log=$figures/$1.log
    bash -euo pipefail ".ci/steps/$1.sh" >"$log" 2>&1 || { tail -n 60 "$log"; return 1; }
}
SHUTTLE_SCHEDULES=$schedules gate "$schedules schedules of threads" quietly shuttle
gate "mutations" quietly mutants
exit "$status"
