# Runs a command of README.md exactly as it stands there, so that the README cannot promise what does not work:
#
#     bash .ci/steps/readme.sh NAME [ARGUMENT…]
#
# The command is the first line of the code block after the marker `<!-- ci: NAME -->`. Arguments are handed to the
# program behind the command, after `--`.
name=$1
shift
command=$(awk -v marker="<!-- ci: $name -->" '
    index($0, marker) { marked = 1; next }
    marked && /^```/ { if (inside) exit; inside = 1; next }
    inside && NF { print; exit }
' README.md)
[[ -n $command ]] || { echo "README.md has no command marked <!-- ci: $name -->"; exit 1; }
if (($# > 0)); then
    [[ $command == *" -- "* ]] || command+=" --"
    command+=" $*"
fi
echo "+ $command"
bash -euo pipefail -c "$command"
