# One format for all sources, those of the fuzz targets included.
cargo fmt --check
cargo fmt --check --manifest-path fuzz/Cargo.toml
