#!/usr/bin/env bash
# Changes the code in small ways, one at a time, in a copy of the tree, and runs the tests of its crate: a change that no test
# notices is shown, and fails. What may go unnoticed stands in .cargo/mutants.toml, each with its reason.
#   scripts/mutants.sh [PART...]   identity, policy, ca or record (the proxy's record layer); without a word all of them, some hours
#   MUTANTS_SHARD=2/8 scripts/mutants.sh identity   every eighth of its changes, from the third on
set -euo pipefail
source "$(dirname "$0")/environment.sh"

readonly VERSION=27.1.0
# A test that hangs on a change has noticed it.
readonly TIMEOUT_SECONDS=120

if [[ $(cargo mutants --version 2>/dev/null) != *" $VERSION" ]]; then
    cargo install --locked "cargo-mutants@$VERSION"
fi
cargo build -q --locked --workspace --bin ringmail-evidence

parts=("$@")
((${#parts[@]})) || parts=(identity policy ca record)
shard=()
[[ -z ${MUTANTS_SHARD:-} ]] || shard=(--shard "$MUTANTS_SHARD" --sharding round-robin)

readonly OUT=$PWD/target/mutants
readonly COPY=$OUT/tree
rm -rf "$COPY" && mkdir -p "$COPY"
trap 'rm -rf "$COPY"' EXIT
# As new as they are: what was built of the last change of an earlier run would count as built of them.
git ls-files -z --cached --others --exclude-standard | tar --null -T - -c | tar -x -m -C "$COPY"

# Which files are changed, and which tests are to notice.
chosen() {
    case $1 in
    identity | policy | ca) echo "-f $1/src/** --test-package ringmail-$1" ;;
    record) echo "-f proxy/src/tls/record/*.rs --test-package ringmail-proxy -- --lib tls::record" ;;
    *) fail "part $1: expected identity, policy, ca or record" ;;
    esac
}

count() {
    wc -l <"$OUT/$1/mutants.out/$2.txt"
}

status=0
for part in "${parts[@]}"; do
    mkdir -p "$OUT/$part"
    read -ra words <<<"$(chosen "$part")"
    (cd "$COPY" && cargo mutants --in-place --timeout "$TIMEOUT_SECONDS" --output "$OUT/$part" "${shard[@]}" "${words[@]}") ||
        status=1
    noticed=$(($(count "$part" caught) + $(count "$part" timeout)))
    unnoticed=$(count "$part" missed)
    echo "$part: $noticed noticed, $unnoticed not, $(count "$part" unviable) do not compile"
    [[ -n ${MUTANTS_SHARD:-} ]] || "$CARGO_TARGET_DIR/debug/ringmail-evidence" tell M5 "changes of $part, of these unnoticed" \
        "$((noticed + unnoticed)), $unnoticed" "none without a reason" scripts/mutants.sh
done
exit "$status"
