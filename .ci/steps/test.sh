# The README's test command: unit, law, story, wire and loopback tests, the house rules, and every documented example.
# Before there is a README, its command is the one every Rust programmer tries first.
[[ -f README.md ]] || exec cargo test
exec bash -euo pipefail .ci/steps/readme.sh test
