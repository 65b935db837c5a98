# The README's main command, in its short form. Its exit status is the verdict.
exec bash -euo pipefail .ci/steps/readme.sh demo --short
