#!/usr/bin/env bash
# Stands before rustc for the crates of this workspace: they are built so that libFuzzer sees which of their code ran. What they
# stand on is taken as it was built for everything else. Build scripts are no part of what is looked at.
set -euo pipefail
readonly COVERAGE=(
    -Cpasses=sancov-module
    -Cllvm-args=-sanitizer-coverage-level=4
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters
    -Cllvm-args=-sanitizer-coverage-pc-table
    -Cllvm-args=-sanitizer-coverage-trace-compares
    -Ccodegen-units=1
)
[[ " $* " == *" --crate-name build_script_"* ]] && exec "$@"
exec "$@" "${COVERAGE[@]}"
