# Changes one thing at a time in the given files and runs the tests of the data model on each change. Not among the
# default steps: the data model takes hours. What survives is listed in the target directory.
#
#     bash .ci/steps/mutants.sh 'src/clock/**' 'src/crdt/**' 'src/store/**'
score_min=85
target=${CARGO_TARGET_DIR:-target}

cargo mutants --version || cargo install --locked cargo-mutants
(($#)) || set -- 'src/clock/**' 'src/crdt/**' 'src/store/**'
files=()
for glob in "$@"; do
    files+=(--file "$glob")
done
# Optimising what is run for a second costs more than it saves.
export CARGO_PROFILE_DEV_DEBUG=0 CARGO_PROFILE_TEST_DEBUG=0
mutate() {
    # 2 and 3 say that some survived or timed out: the score below decides.
    cargo mutants --no-shuffle --no-default-features --timeout 60 --output "$target" "${files[@]}" \
        --cargo-arg=--config='profile.test.package.driftless.opt-level=0' --cargo-arg=--lib --cargo-arg=--test=laws \
        --cargo-arg=--test=stories --cargo-arg=--test=stories_of_memory --cargo-arg=--test=stories_of_synchronisation \
        "$@" || (($? == 2 || $? == 3))
}
mutate
# What survives the quick tests meets the slow ones.
SCHEDULES=1000 mutate --iterate --features sim --cargo-arg=--test=schedules --cargo-arg=--test=wire
out=$target/mutants.out
killed=$(cat "$out"/{previously_caught,caught,timeout}.txt | wc -l)
missed=$(wc -l <"$out/missed.txt")
echo "killed $killed, missed $missed"
cat "$out/missed.txt"
((killed * 100 >= (killed + missed) * score_min))
