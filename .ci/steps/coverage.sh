# How many lines of the core the tests and the seeds of tests/sim.rs reach. The shell, the simulator and the probes are
# left out: what is measured is what is shipped and pure.
lines_min=95

if ! rustup component list --installed 2>/dev/null | grep -q '^llvm-tools'; then
    if ! rustup component add llvm-tools; then
        echo "SKIPPED: the component llvm-tools is neither installed nor to be had here, so coverage was not measured"
        exit 0
    fi
fi
cargo llvm-cov --version || cargo install --locked cargo-llvm-cov
cargo llvm-cov --locked --no-default-features --features sim --lib --tests --summary-only \
    --ignore-filename-regex '/(runtime|cache|sim|probe|tests|examples)/' --fail-under-lines "$lines_min"
