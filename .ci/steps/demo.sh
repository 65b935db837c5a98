# The README's main command, in its short form. Its exit status is the verdict.
[[ -f examples/three_regions.rs ]] || { echo "there is no examples/three_regions.rs yet"; exit 77; }
exec bash -euo pipefail .ci/steps/readme.sh demo --short
