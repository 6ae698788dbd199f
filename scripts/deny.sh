#!/usr/bin/env bash
# Licences, sources and versions of everything that is built, by deny.toml and cargo-deny, which is built the first time.
#   scripts/deny.sh
# Known vulnerabilities are not among it: their database is on GitHub, and where that cannot be reached nothing is said of them.
# `cargo deny check advisories` looks them up where it can.
set -euo pipefail
source "$(dirname "$0")/environment.sh"

readonly VERSION=0.20.2
# Outside of the repository: a clean build folder is no reason to build it again.
readonly TOOLS=${XDG_CACHE_HOME:-$HOME/.cache}/ringmail/tools/cargo-deny-$VERSION

if [[ ! -x $TOOLS/bin/cargo-deny ]]; then
    echo "missing, built now into $TOOLS: cargo-deny $VERSION"
    CARGO_TARGET_DIR=$TOOLS/build cargo install --quiet --locked --root "$TOOLS" "cargo-deny@$VERSION"
    rm -rf "$TOOLS/build"
fi
"$TOOLS/bin/cargo-deny" --offline --locked --workspace check --hide-inclusion-graph bans licenses sources
echo "advisories were not looked up: cargo deny check advisories does, where it can reach GitHub"
crates=$(grep -c '^name = ' Cargo.lock)
allowed=$(awk '/^allow = \[/ { on = 1; next } /^]/ { on = 0 } on && /"/' deny.toml | wc -l)
cargo build --quiet --locked --workspace --bin ringmail-evidence
"$CARGO_TARGET_DIR/debug/ringmail-evidence" tell S3 "crates judged by cargo-deny: bans, licences, sources" \
    "$crates of $crates admitted" "$allowed licences, one registry" scripts/deny.sh
