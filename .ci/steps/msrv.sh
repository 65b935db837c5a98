# The compiler named by `rust-version` in Cargo.toml builds the library. Not among the default steps: it may have to
# be downloaded first.
version=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)
rustup run "$version" cargo --version || rustup toolchain install "$version" --profile minimal
rustup run "$version" cargo check --locked --all-features
