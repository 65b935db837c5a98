# The documentation builds without a warning: no broken link, no missing page.
RUSTDOCFLAGS="-D warnings" cargo doc --locked --no-deps --all-features
