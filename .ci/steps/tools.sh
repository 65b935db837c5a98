# What the other steps need beyond cargo itself, installed where it is missing.

have() { command -v "$1" >/dev/null 2>&1; }

have cargo || { echo "cargo is missing: install Rust"; exit 1; }
if ! cargo fmt --version || ! cargo clippy --version; then
    rustup component add rustfmt clippy
fi
# ring, zstd and libFuzzer are compiled from C and C++.
if ! have cc || ! have c++; then
    if have apt-get && [[ $(id -u) == 0 ]]; then
        apt-get update && apt-get install --yes gcc g++
    else
        echo "a C and a C++ compiler are missing: install gcc and g++"
        exit 1
    fi
fi
cargo fuzz --version || cargo install --locked cargo-fuzz
