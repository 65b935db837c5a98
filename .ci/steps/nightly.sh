# What takes hours on an idle machine: many seeds that no other day has, the same over QUIC, and every planted fault. Not
# among the default steps. Each of the three counts as one test; the figures go to ci/nightly of the target directory.
seeds=${NIGHTLY_SEEDS:-300000}
quic_seeds=${NIGHTLY_QUIC_SEEDS:-12000}
# Days since 1970, a million seeds apart.
from=${NIGHTLY_FROM:-$(($(date +%s) / 86400 * 1000000))}
target=${CARGO_TARGET_DIR:-target}
figures=$target/ci/nightly
mkdir -p "$figures"

status=0
gate() {
    local name=$1
    shift
    echo "== $name"
    if "$@"; then
        echo "test result: ok. 1 passed; 0 failed"
    else
        echo "test result: FAILED. 0 passed; 1 failed"
        status=1
    fi
}

gate "$seeds seeds" cargo run --locked --release --no-default-features --features sim --example simulate -- \
    --seeds "$seeds" --from "$from" --json "$figures/seeds.json"
gate "$quic_seeds seeds over QUIC" cargo run --locked --release --features sim --example simulate -- \
    --config quic --seeds "$quic_seeds" --from "$from" --json "$figures/quic.json"
RUSTFLAGS="--cfg planted" CARGO_TARGET_DIR=$target/planted gate "planted faults" \
    cargo run --locked --release --no-default-features --features sim --example simulate -- \
    --planted all --json "$figures/planted.json"
exit "$status"
