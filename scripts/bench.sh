#!/usr/bin/env bash
# Installs what is missing, builds the release binaries, measures every candidate side by side as root, then real Ignite
# rings, and makes the report of both. Arguments go to `ringmail-bench run`, see its --help: --ztunnel PATH and --linkerd PATH
# add peers that are in no package, --baseline PATH another build of ringmail-proxy.
#   RINGMAIL_BENCH_IGNITE_ROUNDS=N   rounds of the rings, 5 without it, none with 0
set -euo pipefail
source "$(dirname "$0")/environment.sh"

readonly RESULTS=target/bench/results.json IGNITE_RESULTS=target/bench/ignite.json
readonly IGNITE_ROUNDS=${RINGMAIL_BENCH_IGNITE_ROUNDS:-5}

announce "what the benchmark needs"
scripts/install-deps.sh bench
source scripts/environment.sh

envoy=$(scripts/envoy.sh)

announce "build"
cargo build --locked --release -p ringmail-bench -p ringmail-ca -p ringmail-init
# By itself: its size is a figure, and what others want of a shared crate is not part of it.
cargo build --locked --release -p ringmail-proxy

announce "measure"
inputs=(--in "$RESULTS")
as_root target/release/ringmail-bench run --envoy "$envoy" --out "$RESULTS" "$@"

if ((IGNITE_ROUNDS)); then
    announce "measure rings of Ignite"
    inputs+=(--in "$IGNITE_RESULTS")
    as_root target/release/ringmail-bench ignite --rounds "$IGNITE_ROUNDS" --binaries target/release \
        --envoy "$envoy" --out "$IGNITE_RESULTS"
fi

announce "report"
target/release/ringmail-bench report "${inputs[@]}" --out docs/benchmark --readme README.md
