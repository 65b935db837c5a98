# The README's two demos, in their short forms. The exit status of each is its verdict. Regions of several processes are
# another matter than single ones: companions hear each other when a region is cut off, and one of them may be cloned.
bash -euo pipefail .ci/steps/readme.sh demo --short
bash -euo pipefail .ci/steps/readme.sh failover --short
exec bash -euo pipefail .ci/steps/readme.sh failover --short --events cut,cloned_identity --nodes 2 --seed 2
