# `just check` before a push is what CI runs, short of what takes minutes. The steps themselves live in .ci/steps.

# Format, lints, layering, documentation, tests.
check:
    bash .ci/run fmt clippy layering doc test quickstart

# Everything CI does.
ci:
    bash .ci/run

# Every test; `just test NAME` only those whose name contains NAME.
test *args:
    cargo test --all-features {{args}}

# Three regions over a userspace WAN: a cut, a heal, a kill, a restart, a verdict. `just demo --short` for a taste.
demo *args:
    cargo run --release --example three_regions -- {{args}}

# Five regions that fail in seven ways while clients go on. `just failover --short` for a taste.
failover *args:
    cargo run --release --example failover -- {{args}}

# Medians on this machine; `just bench store` for one of them.
bench name="":
    cargo bench {{ if name == "" { "--benches" } else { "--bench " + name } }}

# Every fuzz target in turn for so many minutes; `just fuzz 10 "hello full_sync"` only these.
fuzz minutes="1" targets="":
    bash .ci/run tools
    FUZZ_SECONDS=$(({{minutes}} * 60)) FUZZ_TARGETS="{{targets}}" bash -euo pipefail .ci/steps/fuzz.sh

# Clusters in virtual time: `just simulate --seeds 10000`, `just simulate --seed 42 --trace`, `just simulate --help`.
simulate *args:
    cargo run --release --no-default-features --features sim --example simulate -- {{args}}

# Mistakes planted one at a time, each of which the simulation must see: `just planted all`, `just planted CounterWraps`.
planted *names="all":
    RUSTFLAGS="--cfg planted" CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-target}/planted" cargo run --release \
        --no-default-features --features sim --example simulate -- --planted {{names}}

# What takes hours: 300,000 seeds, 12,000 over QUIC, planted faults, a million schedules. Figures in the target directory.
nightly:
    bash .ci/steps/nightly.sh

# Threads in thousands of orders, and the data model in miri: `SHUTTLE_SCHEDULES=100000 just threads` tries more.
threads:
    bash .ci/run shuttle miri

# Rewrite the sources into the one format.
fmt:
    cargo fmt
    cargo fmt --manifest-path fuzz/Cargo.toml

# The core alone, and proof that it does no IO.
layering:
    bash .ci/run layering

# The oldest compiler Cargo.toml promises.
msrv:
    bash .ci/run msrv

# Licences, duplicates, sources and advisories of the dependencies.
deny:
    cargo deny check

# Line coverage of the core; fails below 95 %.
coverage:
    bash .ci/run coverage

# How many mutations of the data model the tests see: the whole run takes hours, `just mutants src/crdt/set.rs` minutes.
mutants *files="src/clock/** src/crdt/** src/store/**":
    bash .ci/steps/mutants.sh {{files}}
