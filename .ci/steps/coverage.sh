# How many lines of the core the tests and the seeds of tests/sim.rs reach. The shell, the simulator and the probes are
# left out: what is measured is what is shipped and pure. Counts as one test, since the test step has counted these; a
# failing one fails this step too. Two minutes on two idle cores, most of it for the build of what is measured: what it
# depends on is neither measured nor built again. Every line with its count stays in ci/coverage of the target directory.
lines_min=95
target=${CARGO_TARGET_DIR:-target}
figures=$target/ci/coverage
mkdir -p "$figures"

if ! rustup component list --installed 2>/dev/null | grep -q '^llvm-tools'; then
    if ! rustup component add llvm-tools; then
        echo "SKIPPED: the component llvm-tools is neither installed nor to be had here, so coverage was not measured"
        exit 0
    fi
fi
cargo llvm-cov --version || cargo install --locked cargo-llvm-cov

# The other tests are of the shell, of the simulator or of the sources' form, and to build them takes longer than to run
# these.
tests=(--lib)
for name in laws schedules sim sim_faults stories stories_of_memory stories_of_synchronisation wire wire_compat; do
    tests+=(--test "$name")
done
# The report is of every program there is, so those of an older source must go.
cargo llvm-cov clean --workspace
cargo llvm-cov --locked --no-default-features --features sim --no-report \
    "${tests[@]}" >"$figures/tests.log" 2>&1 || { tail -n 60 "$figures/tests.log"; exit 1; }
of_the_core=(--ignore-filename-regex "^$PWD/(tests|examples)/|/src/(runtime|cache|sim|probe)/|/tests\.rs$|/tests/")
cargo llvm-cov report "${of_the_core[@]}" --text --show-missing-lines --output-path "$figures/lines.txt"
cargo llvm-cov report "${of_the_core[@]}" --summary-only --fail-under-lines "$lines_min"
