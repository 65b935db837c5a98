# Every fuzz target is built once, takes the inputs that once failed, and then runs for some seconds from the committed
# seeds, as many targets at a time as there are cores, two at most. Prints what each came to.
# FUZZ_SECONDS is for how long, FUZZ_TARGETS which. FUZZ_SANITIZER=address brings AddressSanitizer, at half the speed: the
# crate has no unsafe code, so it would find faults of what the crate depends on.
#
# Instrumentation is unstable in rustc. A nightly toolchain is used where there is one; elsewhere the stable compiler
# is told to accept unstable flags, which spares a fresh machine a second toolchain.
fuzz_seconds=${FUZZ_SECONDS:-20}
sanitizer=${FUZZ_SANITIZER:-none}
# A target that needs more than this for one small input has found something.
rss_limit_mb=512
cores=$(nproc)
at_a_time=$((cores < 2 ? 1 : 2))

cargo=(cargo)
nightly=$(rustup toolchain list 2>/dev/null | sed -n 's/^\(nightly[^ ]*\).*/\1/p' | head -n 1) || true
if [[ -n ${nightly:-} ]] && cargo "+$nightly" --version; then
    cargo=(cargo "+$nightly")
else
    export RUSTC_BOOTSTRAP=1
fi
built=${CARGO_TARGET_DIR:-target}/fuzz-$sanitizer
"${cargo[@]}" fuzz build --sanitizer "$sanitizer" --target-dir "$built"
binaries=$built/$("${cargo[@]}" -vV | sed -n 's/^host: //p')/release
logs=$built/logs
mkdir -p "$logs"

# How large an input may be and how long it may take, where that is not libFuzzer's to choose: a story of known length
# needs no slow growth, and a cluster's takes longer than a message. What takes milliseconds on an idle machine has half
# a minute: libFuzzer counts the time of the day, not the processor's.
options_of() {
    case $1 in
        sim_schedule) echo -max_len=128 -len_control=0 -timeout=60 ;;
        hello | config_parse) echo -max_len=1024 -len_control=0 -timeout=30 ;;
        *_ops | *_oracle | *_laws | full_sync) echo -max_len=400 -len_control=0 -timeout=30 ;;
        *) echo -max_len=8192 -timeout=30 ;;
    esac
}

# Replays what once failed, then searches. libFuzzer writes to the first directory and only reads the others.
fuzz() {
    local target=$1 corpus=(fuzz/corpus/"$1") dir options dictionary=fuzz/dictionaries/$1.dict
    local failed_once=(fuzz/regressions/"$target"/*)
    mkdir -p "${corpus[0]}" "fuzz/artifacts/$target"
    for dir in fuzz/seeds/"$target" fuzz/regressions/"$target"; do
        if [[ -d $dir ]]; then corpus+=("$dir"); fi
    done
    # Messages of released versions are the best start for a decoder.
    if [[ $target == wire_* ]]; then corpus+=(tests/golden/v1); fi
    read -ra options < <(options_of "$target")
    if [[ -f $dictionary ]]; then options+=("-dict=$dictionary"); fi
    options+=("-rss_limit_mb=$rss_limit_mb" "-artifact_prefix=fuzz/artifacts/$target/" -print_final_stats=1)
    if [[ -e ${failed_once[0]} ]]; then
        "$binaries/$target" "${options[@]}" "${failed_once[@]}" || return 1
    fi
    local TIMEFORMAT='cpu: %U'
    time "$binaries/$target" "${corpus[@]}" "${options[@]}" "-max_total_time=$fuzz_seconds"
}

# Prints the figures of a run, or the end of its log.
tell() {
    local target=$1 log=$logs/$1.log
    if ! grep -q '^stat::number_of_executed_units' "$log" || [[ -e $logs/$target.failed ]]; then
        printf '%-15s FAILED; the end of %s:\n' "$target" "$log"
        grep -avE 'NEW|REDUCE|pulse|Uses:' "$log" | tail -n 40 | cut -c 1-400
        return 1
    fi
    awk -v target="$target" '
        /^stat::number_of_executed_units/ { runs = $2 }
        /^stat::average_exec_per_sec/ { rate = $2 }
        /^cpu:/ { cpu = $2 }
        / DONE / { for (i = 1; i < NF; i++) if ($i == "corp:") corpus = $(i + 1) }
        END { printf "%-15s %9d runs %7d/s %7d/s of CPU  corpus %s\n", target, runs, rate, runs / (cpu + 0.001), corpus }
    ' "$log"
}

read -ra targets <<<"${FUZZ_TARGETS:-$(basename -s .rs fuzz/fuzz_targets/*.rs | tr '\n' ' ')}"
for target in "${targets[@]}"; do
    while (($(jobs -rp | wc -l) >= at_a_time)); do wait -n || true; done
    rm -f "$logs/$target.failed"
    (fuzz "$target" >"$logs/$target.log" 2>&1 || touch "$logs/$target.failed") &
done
wait
status=0
for target in "${targets[@]}"; do
    tell "$target" || status=1
done
exit "$status"
