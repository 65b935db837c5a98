# Changes one thing at a time in the given files and runs the fast tests on each change. Not among the default steps:
# the data model takes hours. What survives is listed in the target directory.
#
#     bash .ci/steps/mutants.sh 'src/clock/**' 'src/crdt/**' 'src/store/**'
score_min=85
target=${CARGO_TARGET_DIR:-target}

cargo mutants --version || cargo install --locked cargo-mutants
files=()
for glob in "$@"; do
    files+=(--file "$glob")
done
# 2 and 3 say that some survived or timed out: the score below decides.
SCHEDULES=1000 cargo mutants --no-shuffle --no-default-features --features sim --timeout 60 --output "$target" "${files[@]}" -- \
    --lib --test laws --test stories --test stories_of_memory --test schedules || (($? == 2 || $? == 3))
out=$target/mutants.out
killed=$(cat "$out/caught.txt" "$out/timeout.txt" | wc -l)
missed=$(wc -l <"$out/missed.txt")
echo "killed $killed, missed $missed"
cat "$out/missed.txt"
((killed * 100 >= (killed + missed) * score_min))
