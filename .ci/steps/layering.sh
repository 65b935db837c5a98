# The core builds alone, and nothing that does IO is in its dependency tree. Who imports whom inside the crate is
# checked by tests/tidy.rs.
cargo check --locked --no-default-features
tree=$(cargo tree --locked --no-default-features --edges normal --prefix none)
if grep -E '^(tokio|mio|socket2|async-std|smol|quinn|quinn-proto|quinn-udp|rustls|ring|x509-parser)( |$)' <<<"$tree"; then
    echo "the core depends on what is named above; only the shell (feature net) may"
    exit 1
fi
