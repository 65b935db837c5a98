# To be sourced by steps that count what they do as tests: `gate NAME COMMAND...` is one, and `status` tells how they went.
status=0
gate() {
    local name=$1
    shift
    echo "== $name"
    if "$@"; then
        echo "test result: ok. 1 passed; 0 failed"
    else
        echo "test result: FAILED. 0 passed; 1 failed"
        status=1
    fi
}
