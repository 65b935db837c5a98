# The store, the clock, the node's waits and the public handles under thousands of schedules of their threads, and every
# order of the few atomics that no lock guards: tests/shuttle.rs, src/cache/tests/threads.rs and tests/loom.rs, in one
# build with `--cfg shuttle`.
#
# SHUTTLE_SCHEDULES is how many schedules of each of two kinds a scenario runs under. The tests' own choice, 5,000, takes
# ten seconds after the build. Loom has no such number: it is through when it has tried all.
export RUSTFLAGS="--cfg shuttle" CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-target}/shuttle

cargo test --locked --test shuttle --test loom
# The other unit tests know nothing of schedules: their locks would be a checker's without a checker.
cargo test --locked --lib cache::tests::threads::
