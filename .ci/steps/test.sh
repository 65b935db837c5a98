# The README's test command: unit, law, story, wire, simulation and loopback tests, the house rules, and every
# documented example.
exec bash -euo pipefail .ci/steps/readme.sh test
