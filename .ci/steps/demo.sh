# The README's two demos, in their short forms. The exit status of each is its verdict.
bash -euo pipefail .ci/steps/readme.sh demo --short
exec bash -euo pipefail .ci/steps/readme.sh failover --short
