# The README's quick start compiles and runs: it is a documentation test of the library. The test step ran it already
# among all others and counted it; this one proves that it was there.
[[ -f README.md ]] || { echo "there is no README.md yet"; exit 77; }
output=$(cargo test --locked --doc README 2>&1) || { echo "$output"; exit 1; }
if ! grep -E '^test .*README\.md.* \.\.\. ok$' <<<"$output"; then
    echo "$output"
    echo "no code block of README.md is a documentation test of the library: see the end of src/lib.rs"
    exit 1
fi
