# Sourced by the other scripts: where the repository is, how to become root, how a step is announced.
# shellcheck shell=bash

cd "$(dirname "${BASH_SOURCE[0]}")/.."

# What is built is looked for there, wherever the caller's cargo puts what it builds.
export CARGO_TARGET_DIR=$PWD/target

# A toolchain that install-deps.sh has just installed is found without a new login.
if [[ -n ${HOME:-} && -d $HOME/.cargo/bin ]]; then
    PATH=$HOME/.cargo/bin:$PATH
fi
# iptables and ip live here, and a user's PATH on Debian may lack it.
PATH=$PATH:/usr/sbin:/sbin
export PATH

announce() {
    printf '\n== %s\n' "$*"
}

fail() {
    printf '%s: %s\n' "$(basename "$0")" "$*" >&2
    exit 1
}

# How often something is fetched, and how many seconds longer than before is waited each time: a registry that is busy for a moment
# must not end a run of an hour.
FETCH_TRIES=4 FETCH_PAUSE=5

# Runs a command that fetches something, again where that fails.
persistently() {
    local try
    for ((try = 1; ; try++)); do
        "$@" && return
        ((try < FETCH_TRIES)) || return 1
        echo "failed, again in $((try * FETCH_PAUSE)) s: $*" >&2
        sleep $((try * FETCH_PAUSE))
    done
}

# Runs a command as root: directly, or through sudo with the caller's environment, but with the home of root: what it caches
# there would otherwise belong to root in the home of the caller.
as_root() {
    if [[ $(id -u) -eq 0 ]]; then
        "$@"
    elif command -v sudo >/dev/null; then
        sudo -E -H env "PATH=$PATH" "$@"
    else
        fail "needs root for: $* (run as root, or install sudo)"
    fi
}

# The sum of the numbers that a pattern finds in a file, one in each line.
numbers() {
    sed -n "s/$1/\1/p" "$2" | awk '{ total += $1 } END { print total + 0 }'
}

# How many tests passed, or failed, of all the summaries of cargo test in a file.
sum() {
    numbers "^test result: .* \([0-9]*\) $1;.*" "$2"
}

# How many scenarios of one list may be asked a second time. They measure time, and share their machine with strangers: now and then
# one fails for that. What is broken fails again, and more than so many are no accident.
SECOND_LOOKS=3
# How cargo ends where tests have failed, and nothing worse has happened.
TESTS_HAVE_FAILED=101

# A command of cargo test whose last words are for the tests; where few of them fail, those once more. It says how many it asked again,
# and which of them held: whoever counts takes those that were asked again from the failures. By night nothing is asked twice.
asked_twice() {
    local log names held status=0 again=0
    log=$(mktemp)
    "$@" 2>&1 | tee "$log" || status=${PIPESTATUS[0]}
    mapfile -t names < <(sed -n 's/^test \(.*\) \.\.\. FAILED$/\1/p' "$log")
    if ((status != TESTS_HAVE_FAILED)) || [[ ${RINGMAIL_NIGHTLY:-} == 1 ]] || ! are_all_that_failed "$log" "${names[@]}"; then
        rm -f "$log"
        return "$status"
    fi
    announce "once more: ${names[*]}"
    "$@" --exact "${names[@]}" 2>&1 | tee "$log" || again=${PIPESTATUS[0]}
    held=$(sed -n 's/^test \(.*\) \.\.\. ok$/\1/p' "$log" | tr '\n' ' ')
    echo "asked again: ${#names[@]}, of these held: $held"
    # A filter that matches nothing would hold too: exactly as many have to pass as had failed.
    if ((again == 0 && $(sum passed "$log") != ${#names[@]})); then
        again=1
    fi
    rm -f "$log"
    return "$again"
}

# Whether these few names are all that failed of a run: a program of tests that crashed, or was ended, has no summary, and whatever a
# child prints may stand in the line of a name.
are_all_that_failed() {
    local log=$1 broken told
    shift
    broken=$(grep -c '^    `-p ' "$log") || true
    told=$(grep -c '^test result: FAILED' "$log") || true
    (($# > 0 && $# <= SECOND_LOOKS && $# == $(sum failed "$log") && broken > 0 && broken == told))
}
