#!/usr/bin/env bash
# Shows that each target would find something: puts a fault for each into a copy of the tree (fuzz/planted/TARGET.patch), builds it
# once, and looks until each is found, for SECONDS at most. A fault is there for its own target alone, which it knows by the name in
# RINGMAIL_FUZZ_TARGET.
#   scripts/fuzz-planted.sh [SECONDS [TARGET...]]   120 s and all targets without a word
set -euo pipefail
source "$(dirname "$0")/environment.sh"

readonly SECONDS_EACH=${1:-120}
shift || true
targets=("$@")
((${#targets[@]})) || for patch in fuzz/planted/*.patch; do targets+=("$(basename "$patch" .patch)"); done

readonly COPY=$PWD/target/fuzz/planted
rm -rf "$COPY" && mkdir -p "$COPY"
trap 'rm -rf "$COPY"' EXIT
git ls-files -z --cached --others --exclude-standard | tar --null -T - -c | tar -x -m -C "$COPY"
cargo build -q --locked --workspace --bin ringmail-evidence
for target in "${targets[@]}"; do
    patch -s -p1 -d "$COPY" <"fuzz/planted/$target.patch"
done
(cd "$COPY" && RUSTC_WORKSPACE_WRAPPER=$COPY/fuzz/instrument.sh cargo build -q --locked --workspace --bin ringmail-fuzz)
cp "$CARGO_TARGET_DIR/debug/ringmail-fuzz" "$COPY/fuzzer"

# What ends by anything but an assertion or a panic of the code's own was not found.
found() {
    local target=$1 log=$COPY/$1.log tries began=$SECONDS
    mkdir -p "$COPY/found/$target"
    if RINGMAIL_FUZZ_TARGET=$target "$COPY/fuzzer" "$COPY/found/$target" "fuzz/corpus/$target" \
        -max_total_time="$SECONDS_EACH" -print_final_stats=1 -artifact_prefix="$COPY/broken-" &>"$log"; then
        return 1
    fi
    grep -q 'panicked at' "$log" || return 1
    tries=$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")
    printf '%-22s found after %s s, %s tries: %s\n' "$target" $((SECONDS - began)) "$tries" \
        "$(grep -A 1 -m 1 'panicked at' "$log" | tail -n 1 | cut -c 1-120)"
    if ((tries > most)); then
        most=$tries slowest=$target
    fi
}

most=0 slowest=
overlooked=()
for target in "${targets[@]}"; do
    if ! found "$target"; then
        echo "$target: the fault was not found within $SECONDS_EACH s"
        tail -n 3 "$COPY/$target.log" 2>/dev/null || true
        overlooked+=("$target")
    fi
done
if ((${#overlooked[@]})); then
    fail "not found: ${overlooked[*]}"
fi
shown() {
    "$CARGO_TARGET_DIR/debug/ringmail-evidence" tell M1 "$1" "$2" "all found" scripts/fuzz-planted.sh
}
shown "planted faults, of these found" "${#targets[@]}, ${#targets[@]}"
shown "tries until the last of them was found" "$most ($slowest)"
echo "${#targets[@]} planted faults, all found"
