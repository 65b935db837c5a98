# Lints are warnings while one works and errors here.
cargo clippy --locked --all-targets --all-features -- -D warnings
