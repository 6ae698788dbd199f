#!/usr/bin/env bash
# Builds programs twice from nothing, in two folders of different names, and compares the binaries byte by byte.
#   scripts/reproducible.sh [PROGRAM...]   ringmail-proxy, ringmail-ca, ringmail-init, ringmail-control without a word
# What was built is kept in target/reproducible/first, and is what a release consists of; its sums are printed.
set -euo pipefail
source "$(dirname "$0")/environment.sh"

programs=("$@")
((${#programs[@]})) || programs=(ringmail-proxy ringmail-ca ringmail-init ringmail-control)
readonly HERE=$PWD OUT=$PWD/target/reproducible
crates=${CARGO_HOME:-$HOME/.cargo}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# Paths are all that would tell one machine's build from another's: each becomes what it is a path of.
build() {
    local folder=$1 program
    mkdir -p "$folder"
    git ls-files -z --cached --others --exclude-standard | tar -c --null --files-from=- | tar -x -C "$folder"
    for program in "${programs[@]}"; do
        # Each alone, as a release is built: together they would take each other's features.
        (cd "$folder" && env \
            CARGO_TARGET_DIR="$folder/target" CARGO_INCREMENTAL=0 \
            CARGO_ENCODED_RUSTFLAGS="--remap-path-prefix=$folder=/ringmail"$'\x1f'"--remap-path-prefix=$crates=/cargo" \
            CFLAGS="-ffile-prefix-map=$folder=/ringmail -ffile-prefix-map=$crates=/cargo" \
            cargo build --quiet --locked --release --package "$program")
    done
}

same=0
rm -rf "$OUT"
mkdir -p "$OUT/first"
for turn in first another-name; do
    echo "building ${programs[*]} in $work/$turn"
    build "$work/$turn"
done
for program in "${programs[@]}"; do
    first=$work/first/target/release/$program second=$work/another-name/target/release/$program
    sha256sum "$first" | sed "s|$first|$program|"
    if cmp "$first" "$second"; then
        cp "$first" "$OUT/first"
        same=$((same + 1))
    else
        echo "$program differs from folder to folder: look for the paths in it with strings" >&2
    fi
done
cd "$HERE"
((same == ${#programs[@]}))
cargo build --quiet --locked --workspace --bin ringmail-evidence
"$CARGO_TARGET_DIR/debug/ringmail-evidence" tell S4 "programs built twice, in two folders" \
    "$same of ${#programs[@]} the same, byte by byte" "all" scripts/reproducible.sh
