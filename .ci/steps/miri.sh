# The unit tests of clocks, data types and store in miri, an interpreter that sees undefined behaviour, data races and
# leaks. The library has no unsafe code, its collections and locks have: what is looked for is a use of theirs that goes
# wrong.
#
# MIRI_TESTS is a list of prefixes of names. What calls zstd is left out: that is C, which miri cannot read. Miri is some
# hundred times slower than the machine, so loops in tests are shorter there (`cfg!(miri)`) and what takes more than ten
# seconds is left to the machine: after the build the step takes three quarters of a minute.
tests=${MIRI_TESTS:-clock:: crdt:: store::}

nightly=$(rustup toolchain list 2>/dev/null | sed -n 's/^\(nightly[^ ]*\).*/\1/p' | head -n 1) || true
if [[ -z ${nightly:-} ]] || ! cargo "+$nightly" miri --version; then
    nightly=nightly
    if ! rustup toolchain install "$nightly" --profile minimal --component miri --component rust-src; then
        echo "SKIPPED: a nightly toolchain with miri is neither installed nor to be had here"
        exit 0
    fi
fi
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-target}/miri
read -ra names <<<"$tests"
cargo "+$nightly" miri test --locked --no-default-features --lib -- "${names[@]}"
