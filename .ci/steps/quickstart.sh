# The README's quick start compiles and runs: it is a documentation test of the library. The test step ran it already
# among all others and counted it; this one proves that it was there. The features are those of the README's test
# command, so that nothing is built twice.
output=$(cargo test --locked --all-features --doc Readme 2>&1) || { echo "$output"; exit 1; }
if ! grep -E '^test .* - Readme \(line [0-9]+\) \.\.\. ok$' <<<"$output"; then
    echo "$output"
    echo "no code block of README.md is a documentation test of the library: see the end of src/lib.rs"
    exit 1
fi
