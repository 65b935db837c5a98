# The README's main command, in its short form. Its exit status is the verdict.
[[ -f examples/three_regions.rs || -f examples/three_regions/main.rs ]] || { echo "there is no example three_regions yet"; exit 77; }
exec bash -euo pipefail .ci/steps/readme.sh demo --short
