#!/usr/bin/env bash
# Changes the code in small ways, one at a time, in a copy of the tree, and runs the tests of its crate: a change that no test
# notices is shown, and fails. What may go unnoticed stands in .cargo/mutants.toml, each with its reason.
#   scripts/mutants.sh [PART...]   identity, policy, ca or record (the proxy's record layer); without a word all of them, some hours
#   MUTANTS_GO_ON=1 scripts/mutants.sh identity   goes on after a run that was ended: what was noticed then is not tried again
# A test that hangs on a change has noticed it: it has five times what all of them take without one, and 20 s at least.
set -euo pipefail
source "$(dirname "$0")/environment.sh"

readonly VERSION=27.1.0 NEXTEST_VERSION=0.9.151
# Most tests of the CA wait for a program, and the first that fails ends the run.
readonly AT_ONCE=8

readonly ALL_PARTS=(identity policy ca record)
parts=("$@")
((${#parts[@]})) || parts=("${ALL_PARTS[@]}")
for part in "${parts[@]}"; do
    [[ " ${ALL_PARTS[*]} " == *" $part "* ]] || fail "part $part: expected some of ${ALL_PARTS[*]}"
done

if [[ $(cargo mutants --version 2>/dev/null) != *" $VERSION" ]]; then
    cargo install --locked "cargo-mutants@$VERSION"
fi
if [[ $(cargo nextest --version 2>/dev/null) != "cargo-nextest $NEXTEST_VERSION "* ]]; then
    cargo install --locked "cargo-nextest@$NEXTEST_VERSION"
fi
cargo build -q --locked --workspace --bin ringmail-evidence
readonly TELL=$CARGO_TARGET_DIR/debug/ringmail-evidence

readonly OUT=$PWD/target/mutants
readonly COPY=$OUT/tree
rm -rf "$COPY" && mkdir -p "$COPY"
# What changed programs tell is no figure, what they are built into is nobody else's, and every test is the short one.
TOLD=$(mktemp -d)
readonly TOLD
trap 'rm -rf "$COPY" "$TOLD"' EXIT
# Each change is built, and most are run for a second: so without what would make them fast, and without the places of the source,
# which a change of one line moves in all the others.
changed() {
    env -u RINGMAIL_NIGHTLY RINGMAIL_EVIDENCE="$TOLD" CARGO_TARGET_DIR="$OUT/target" CARGO_PROFILE_DEV_DEBUG=0 \
        CARGO_PROFILE_DEV_OPT_LEVEL=0 NEXTEST_TEST_THREADS="$AT_ONCE" "$@"
}
# As new as they are: what was built of the last change of an earlier run would count as built of them.
git ls-files -z --cached --others --exclude-standard | tar --null -T - -c | tar -x -m -C "$COPY"

# Which files are changed.
changes() {
    case $1 in
    identity | policy | ca) echo "$1/src/**" ;;
    record) echo "proxy/src/tls/record/*.rs" ;;
    esac
}

# Which tests are to notice, those of seconds first: only what they do not notice is shown to those of half a minute.
at_first() {
    case $1 in
    identity) echo "--test-package ringmail-identity" ;;
    policy) echo "--test-package ringmail-policy -- -E !test(limits::)" ;;
    ca) echo "--test-package ringmail-ca --cargo-arg=--lib" ;;
    record) echo "--test-package ringmail-proxy --cargo-arg=--lib -- tls::record" ;;
    esac
}
and_then() {
    case $1 in
    identity) ;;
    policy | ca) echo "--test-package ringmail-$1" ;;
    record)
        echo "--test-package ringmail-proxy --cargo-arg=--test=ends --cargo-arg=--test=handshake" \
            "--cargo-arg=--test=last_words --cargo-arg=--test=memory"
        ;;
    esac
}

# How cargo-mutants ends where all went as it should, where something went unnoticed, and where a test hung.
readonly DONE=(0 2 3)

# Leaves out what an earlier try has noticed.
#   try PART TESTS
try() {
    local words code=0
    read -ra words <<<"$2"
    (cd "$COPY" && changed cargo mutants --test-tool nextest --in-place --iterate --output "$OUT/$1" -f "$(changes "$1")" \
        "${words[@]}") || code=$?
    [[ " ${DONE[*]} " == *" $code "* ]] || fail "$1: cargo-mutants ended with $code"
    collect "$1"
}

# Keeps what a try has found: the next one begins lists of its own. It would show what hung to other tests, which may not hang.
collect() {
    local kind lists=$OUT/$1/mutants.out
    cat "$lists/timeout.txt" >>"$lists/caught.txt"
    for kind in caught timeout unviable; do
        cat "$lists/$kind.txt" >>"$OUT/$1/$kind"
    done
}

# How many of the changes that there are now are of this kind: names have lines, and those of an earlier state are no changes any more.
#   count PART KIND
count() {
    (cd "$COPY" && cargo mutants --list -f "$(changes "$1")") | sort -u | comm -12 - <(sort -u "$OUT/$1/$2") | wc -l
}

status=0
for part in "${parts[@]}"; do
    [[ -n ${MUTANTS_GO_ON:-} ]] || rm -rf "${OUT:?}/$part"
    mkdir -p "$OUT/$part"
    [[ ! -e $OUT/$part/mutants.out/caught.txt ]] || collect "$part"
    try "$part" "$(at_first "$part")"
    [[ -z $(and_then "$part") ]] || try "$part" "$(and_then "$part")"
    cp "$OUT/$part/mutants.out/missed.txt" "$OUT/$part/missed"
    hung=$(count "$part" timeout) unnoticed=$(count "$part" missed)
    tried=$(($(count "$part" caught) + unnoticed))
    echo "$part: of $tried changes $unnoticed not noticed, $hung by a test that hung; $(count "$part" unviable) do not compile"
    ((tried)) || fail "$part: nothing was tried"
    if ((unnoticed)); then
        status=1
    else
        "$TELL" tell M5 "changes of $part: tried, of these for too long, of these unnoticed" "$tried, $hung, 0" \
            "none unnoticed without a reason" scripts/mutants.sh
    fi
done
exit "$status"
