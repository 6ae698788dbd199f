#!/usr/bin/env bash
# Shows that each target would find something: puts a fault into a copy of the tree (fuzz/planted/TARGET.patch), builds it, and
# looks until it is found, for SECONDS at most. About a minute for each.
#   scripts/fuzz-planted.sh [SECONDS [TARGET...]]   120 s and all targets without a word
set -euo pipefail
source "$(dirname "$0")/environment.sh"

readonly SECONDS_EACH=${1:-120}
shift || true
targets=("$@")
((${#targets[@]})) || for patch in fuzz/planted/*.patch; do targets+=("$(basename "$patch" .patch)"); done

here=$PWD
copy=$here/target/fuzz/planted
overlooked=()
# Every step says by itself that it failed: a fault that did not compile would be found by everything.
found() {
    local target=$1 tries began
    cd "$copy" || return 1
    patch -s -p1 <"fuzz/planted/$target.patch" || return 1
    CARGO_TARGET_DIR=$here/target RUSTC_WORKSPACE_WRAPPER=$copy/fuzz/instrument.sh \
        cargo build -q --locked --workspace --bin ringmail-fuzz || return 1
    mkdir -p target/found && cp "$here/target/debug/ringmail-fuzz" target/ || return 1
    began=$SECONDS
    if RINGMAIL_FUZZ_TARGET=$target target/ringmail-fuzz target/found "fuzz/corpus/$target" \
        -max_total_time="$SECONDS_EACH" -artifact_prefix=target/broken- &>target/log; then
        return 1
    fi
    grep -q 'panicked at' target/log || return 1
    tries=$(grep -oE '^#[0-9]+' target/log | tail -n 1)
    printf '%-22s found after %s s, %s tries: %s\n' "$target" $((SECONDS - began)) "${tries#\#}" \
        "$(grep -A 1 -m 1 'panicked at' target/log | tail -n 1 | cut -c 1-120)"
}

for target in "${targets[@]}"; do
    rm -rf "$copy" && mkdir -p "$copy"
    git ls-files -z --cached --others --exclude-standard | tar --null -T - -c | tar -x -C "$copy"
    if ! (found "$target"); then
        echo "$target: the fault was not found within $SECONDS_EACH s"
        tail -n 3 "$copy/target/log" 2>/dev/null || true
        overlooked+=("$target")
    fi
done
rm -rf "$copy"
if ((${#overlooked[@]})); then
    fail "not found: ${overlooked[*]}"
fi
echo "${#targets[@]} planted faults, all found"
