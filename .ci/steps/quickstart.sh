# The README's quick start compiles and runs: it is a documentation test of the library. The test step ran it already
# among all others; this one proves that it was there.
[[ -f README.md ]] || { echo "there is no README.md yet"; exit 77; }
cargo test --locked --doc -- --list | tee /dev/stderr | grep -q 'README\.md.*: test$' || {
    echo "no code block of README.md is a documentation test (see the end of src/lib.rs)"
    exit 1
}
