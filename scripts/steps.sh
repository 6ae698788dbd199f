#!/usr/bin/env bash
# How the steps of a run are made, counted and summed up; which they are stands in test.sh. To be sourced, after environment.sh.

# Enough for some ten failures; the whole output stands above.
readonly COMPLAINT_LINES=60
# What a command says when it cannot go on is among its last lines, beside what was taken away after it.
readonly LAST_WORDS=25

# The last line is kept here too: after a failure, make has a last line of its own.
readonly SUMMARY=target/test-summary

# A failure says what it expected and got; frames of the test runner around it only bury that.
export RUST_BACKTRACE=${RINGMAIL_BACKTRACE:-0}

passed=0
failed=0
broken=()
complaints=()
twice=()
mkdir -p "$(dirname "$SUMMARY")"
rm -f "$SUMMARY"
BESIDE=$(mktemp -d)
readonly BESIDE

# Runs one step and counts it as one check, or, where it prints summaries of cargo test, as those tests.
step() {
    local name=$1 begin=$SECONDS status=0 log tests_passed tests_failed
    shift
    announce "$name"
    log=$(mktemp)
    "$@" 2>&1 | tee "$log" || status=$?
    tests_passed=$(sum passed "$log")
    tests_failed=$(($(sum failed "$log") - $(asked_again "$log")))
    twice+=("$(sed -n 's/^asked again: .* held: //p' "$log")")
    if ((tests_passed + tests_failed == 0)); then
        ((status)) && tests_failed=1 || tests_passed=1
    elif ((status && tests_failed == 0)); then
        tests_failed=1 # it did not compile, or it was ended
    fi
    passed=$((passed + tests_passed))
    failed=$((failed + tests_failed))
    if ((tests_failed)); then
        broken+=("$name")
        complaints+=("$(complaint "$log")")
    fi
    rm -f "$log"
    printf -- '-- %s: %s passed, %s failed, %s s\n' "$name" "$tests_passed" "$tests_failed" $((SECONDS - begin))
}

# How many failures of a step were asked a second time: what they were then has been summed up too.
asked_again() {
    numbers "^asked again: \([0-9]*\), .*" "$1"
}

# What only computes, and is nobody's measure, runs beside the scenarios on Kubernetes, which mostly wait: one after the other, with
# what they leave of the machine. It is counted as a step of its own once they are done.
beside=()
begin_beside() {
    local name=$1 number=${#beside[@]}
    shift
    beside+=("$name")
    printf '%q ' "$@" >"$BESIDE/$number"
}

run_beside() {
    local number status
    renice -n 19 -p $BASHPID >/dev/null
    for number in "${!beside[@]}"; do
        status=0
        eval "$(cat "$BESIDE/$number")" &>"$BESIDE/$number.log" || status=$?
        echo "$status" >"$BESIDE/$number.status"
    done
}

# What one of them printed, and how it ended.
ran_beside() {
    cat "$BESIDE/$1.log"
    return "$(cat "$BESIDE/$1.status")"
}

# What a reader of the last page wants to know of a step that failed: compiler errors and panics, each with its next line; of what failed
# in no such words, such as a script that could not go on, the last that it said.
complaint() {
    local words
    words=$(grep -E -A 3 "^[Ee]rror|panicked at|^test .* FAILED" "$1" | head -n "$COMPLAINT_LINES") || true
    if [[ -n $words ]]; then
        echo "$words"
    else
        tail -n "$LAST_WORDS" "$1"
    fi
}

# At a terminal an interrupt must reach the tests; elsewhere the end of the time must reach all they have started.
limited() {
    if [[ -t 0 ]]; then
        timeout --foreground "$@"
    else
        timeout "$@"
    fi
}

# The last lines of a run, and how it ends.
#   summed_up SUITE
summed_up() {
    local again
    again=$(printf '%s ' "${twice[@]}")
    [[ -z ${again// /} ]] || printf '\n== failed once, and held when asked again: %s\n' "$again"
    if ((failed)); then
        printf '\n%s\n' "${complaints[@]}"
        printf '\n== %s after %s s: not everything held: %s\n' "$1" "$SECONDS" "$(IFS=';'; echo "${broken[*]}")"
    else
        printf '\n== %s after %s s: everything held\n' "$1" "$SECONDS"
    fi
    echo "$passed passed, $failed failed" | tee "$SUMMARY"
    ((failed == 0))
}
