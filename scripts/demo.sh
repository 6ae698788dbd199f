#!/usr/bin/env bash
# Installs what is missing, builds the release binaries, and runs the demo as root.
set -euo pipefail
source "$(dirname "$0")/environment.sh"

announce "what the demo needs"
scripts/install-deps.sh
source scripts/environment.sh

announce "build"
cargo build --locked --release -p ringmail -p ringmail-ca -p ringmail-init -p ringmail-proxy

announce "demo"
as_root target/release/ringmail demo "$@"
