#!/usr/bin/env bash
# Looks for bytes that break a promise of what meets foreign ones: libFuzzer, led by coverage, on the stable compiler.
#   scripts/fuzz.sh [SECONDS [TARGET...]]   each target for so long, 30 s and all of them without a word; as many at once as
#                                           there are processors; with 0, what is needed for it is built, and no more
# Bytes that break something are shown, and stay in target/fuzz/broken: they belong into fuzz/corpus/TARGET once it is mended.
set -euo pipefail
source "$(dirname "$0")/environment.sh"

readonly SECONDS_EACH=${1:-30}
shift || true
# Far above what a target needs for its largest input, a document whose aliases make a million values of it, and far below what
# a parser that runs away takes.
readonly INPUT_SECONDS=20 MEMORY_MB=2048
# Policies and pods of some size; longer bytes make fewer tries.
readonly MAX_LEN=8192

readonly BUILT=target/fuzz/ringmail-fuzz FOUND=target/fuzz/corpus BROKEN=target/fuzz/broken LOGS=target/fuzz/logs
readonly TRIES=$LOGS/tries
mkdir -p "$FOUND" "$BROKEN" "$LOGS"
: >"$TRIES"

RUSTC_WORKSPACE_WRAPPER=$PWD/fuzz/instrument.sh cargo build --locked --workspace --bin ringmail-fuzz
# The next build for anything else puts one there that sees nothing.
cp "$CARGO_TARGET_DIR/debug/ringmail-fuzz" "$BUILT"
((SECONDS_EACH)) || exit 0

cargo build --locked --workspace --bin ringmail-evidence

targets=("$@")
((${#targets[@]})) || for folder in fuzz/corpus/*/; do targets+=("$(basename "$folder")"); done

look() {
    local target=$1 log=$LOGS/$1 status=0
    mkdir -p "$FOUND/$target"
    RINGMAIL_FUZZ_TARGET=$target "$BUILT" "$FOUND/$target" "fuzz/corpus/$target" -max_total_time="$SECONDS_EACH" \
        -timeout="$INPUT_SECONDS" -rss_limit_mb="$MEMORY_MB" -max_len="$MAX_LEN" -print_final_stats=1 \
        -artifact_prefix="$BROKEN/$target-" &>"$log" || status=$?
    awk -v target="$target" '
        /^#[0-9]+/ { for (i = 1; i < NF; i++) if ($i == "cov:") cov = $(i + 1) }
        /number_of_executed_units/ { tries = $2 }
        END { printf "%-22s %10d tries, %6d edges reached\n", target, tries, cov }' "$log"
    sed -n "s/^stat::number_of_executed_units: */$target /p" "$log" >>"$TRIES"
    if ((status)); then
        echo "$target: broken, exit $status"
        grep -E -A 4 "panicked at|ERROR|Test unit written" "$log" | tail -n 20
        return 1
    fi
}

export -f look
export SECONDS_EACH INPUT_SECONDS MEMORY_MB MAX_LEN BUILT FOUND BROKEN LOGS TRIES
# What a target writes to disk is small and gone at once.
TMPDIR=$(mktemp -d -p /dev/shm 2>/dev/null || mktemp -d)
export TMPDIR
trap 'rm -rf "$TMPDIR"' EXIT
printf '%s\n' "${targets[@]}" | xargs -P "$(nproc)" -I{} bash -c 'look {}'
shown() {
    "$CARGO_TARGET_DIR/debug/ringmail-evidence" tell M1 "$1" "$2" "nothing breaks" scripts/fuzz.sh
}
shown "tries of all targets" "$(awk '{ all += $2 } END { print all }' "$TRIES") of ${#targets[@]} targets, ${SECONDS_EACH} s each"
shown "tries of the slowest target" "$(sort -n -k 2 "$TRIES" | awk 'NR == 1 { print $2 " (" $1 ")" }')"
echo "${#targets[@]} targets, $SECONDS_EACH s each: nothing broke"
