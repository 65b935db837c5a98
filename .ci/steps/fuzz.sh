# Every fuzz target is built and each runs for some seconds.
#
# Instrumentation is unstable in rustc. A nightly toolchain is used where there is one; elsewhere the stable compiler
# is told to accept unstable flags, which spares a fresh machine a second toolchain.
fuzz_seconds=${FUZZ_SECONDS:-20}
# A decoder that needs more than this for one small input has found something.
rss_limit_mb=512
input_seconds_max=5

cargo=(cargo)
nightly=$(rustup toolchain list 2>/dev/null | sed -n 's/^\(nightly[^ ]*\).*/\1/p' | head -n 1) || true
if [[ -n ${nightly:-} ]] && cargo "+$nightly" --version; then
    cargo=(cargo "+$nightly")
else
    export RUSTC_BOOTSTRAP=1
fi

for source in fuzz/fuzz_targets/*.rs; do
    target=$(basename "$source" .rs)
    corpus=(fuzz/corpus/"$target")
    mkdir -p "${corpus[0]}"
    # Frames of released versions are the best start for a decoder; libFuzzer only reads further directories.
    [[ $target == wire_* && -d tests/golden ]] && corpus+=(tests/golden)
    "${cargo[@]}" fuzz run "$target" "${corpus[@]}" -- \
        -max_total_time="$fuzz_seconds" -rss_limit_mb="$rss_limit_mb" -timeout="$input_seconds_max" -print_final_stats=1
done
