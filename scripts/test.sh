#!/usr/bin/env bash
# Everything that CI runs: one step after another, all of them also when one fails, and a last line that counts.
#   scripts/test.sh            what has to hold before every merge
#   scripts/test.sh e2e        the Ignite scenarios alone
#   scripts/test.sh e2e-kube   the scenarios on a real Kubernetes alone
#   scripts/test.sh nightly [PART...]   the same as the first, with every scenario on every version of Ignite, and the long ones,
#                              which takes a night; or parts of it alone: checks crates fuzzing planted licences reproducible mutants
#                              layers peers scenarios kube
set -euo pipefail
source "$(dirname "$0")/environment.sh"

readonly SUITE=${1:-test}
shift || true
[[ " test e2e e2e-kube nightly " == *" $SUITE "* ]] || fail "suite $SUITE: expected test, e2e, e2e-kube or nightly"
readonly ALL_PARTS=(checks crates fuzzing planted licences reproducible mutants layers peers scenarios kube)
readonly PARTS=("$@")
for part in "${PARTS[@]}"; do
    [[ $SUITE == nightly && " ${ALL_PARTS[*]} " == *" $part "* ]] || fail "$SUITE $part: expected nightly and parts of: ${ALL_PARTS[*]}"
done
source scripts/steps.sh
readonly PROXY_LIMIT_BYTES=8000000
# Which shared libraries a release binary may need: those that are glibc's.
readonly GLIBC='^(libc|libm|ld-linux[a-z0-9-]*|libdl|libpthread|librt)\.so'
# A hang must end the run, not the patience of CI. Scenarios have deadlines of their own below this.
TESTS_LIMIT=25m
readonly E2E_LIMIT=40m NIGHTLY_LIMIT=6h
if [[ $SUITE == nightly ]]; then
    # Tests have more orders, seeds and minutes then.
    export RINGMAIL_NIGHTLY=1
    TESTS_LIMIT=$NIGHTLY_LIMIT
fi
# How long the two record layers are compared, and what starting up and the last case may take on top. All targets together are
# fuzzed for as long, as many at once as there are processors.
readonly FUZZ_SECONDS=60 NIGHTLY_FUZZ_SECONDS=3600 FUZZ_GRACE_SECONDS=120

# Whether a part of the nightly is to run: of any other suite there are no parts.
wanted() {
    ((${#PARTS[@]} == 0)) || [[ " ${PARTS[*]} " == *" $1 "* ]]
}

# What the mesh's cryptography must not come from, in any crate of the tree.
unwanted_crates() {
    local found
    found=$(cargo tree --locked --workspace --edges normal,build,dev --prefix none --format '{p}') || return 1
    found=$(grep -E '^(openssl|openssl-sys|native-tls|ring) v' <<<"$found" | sort -u) || true
    [[ -z $found ]] || { echo "unwanted in the tree: $found"; return 1; }
    echo "neither openssl nor ring in the tree"
}

# What each program is made of, as its images ship it.
bills_of_materials() {
    local program
    cargo build --locked --workspace --bin ringmail-evidence || return 1
    for program in ringmail ringmail-{proxy,ca,init,control}; do
        scripts/sbom.sh "$program" >"target/$program.cdx.json" || return 1
        target/debug/ringmail-evidence tell S3 "crates in the bill of materials of $program, each with version and licence" \
            "$(grep -c '"purl"' "target/$program.cdx.json")" "each" scripts/sbom.sh || return 1
    done
}

# Each command says by itself that it failed: a step that is counted does not end at the first error.
release_binary() {
    local binary=target/release/ringmail-proxy bytes
    cargo build --locked --release -p ringmail-proxy || return 1
    bytes=$(stat -c %s "$binary") || return 1
    echo "ringmail-proxy: $bytes bytes, at most $PROXY_LIMIT_BYTES"
    ((bytes <= PROXY_LIMIT_BYTES)) || return 1
    needs_glibc_alone "$binary" || return 1
    # The others are linked in the same way; their debug builds are at hand.
    for binary in target/debug/{ringmail,ringmail-ca,ringmail-init}; do
        needs_glibc_alone "$binary" || return 1
    done
}

needs_glibc_alone() {
    local libraries library
    libraries=$(readelf -d "$1") || return 1
    libraries=$(sed -n 's/.*(NEEDED).*\[\(.*\)\]/\1/p' <<<"$libraries")
    echo "$1 needs $(tr '\n' ' ' <<<"$libraries")"
    for library in $libraries; do
        [[ $library =~ $GLIBC ]] || { echo "$library is not glibc's"; return 1; }
    done
}

# Always of the whole workspace, whatever is picked from it then: for fewer crates, other features are built.
readonly CRATE_TESTS=(cargo test --locked --no-fail-fast --workspace --exclude ringmail-tests)
# Most of them wait for something. By night, when what a machine can do is asserted more closely, there are no more than it has
# processors.
CRATES_AT_ONCE=$(($(nproc) * 2))
[[ $SUITE != nightly ]] || CRATES_AT_ONCE=$(nproc)
readonly CRATES_AT_ONCE

crate_tests() {
    RUST_TEST_THREADS=$CRATES_AT_ONCE limited "$TESTS_LIMIT" "${CRATE_TESTS[@]}"
}

# What connections are promised holds on both record layers; the tests of all crates are about the one that is the default.
# Not here: what each costs (memory, instructions), and what carries no bytes.
readonly ON_BOTH_LAYERS=(ends handshake interop last_words refusals)

reference_layer() {
    local test tests=()
    for test in "${ON_BOTH_LAYERS[@]}"; do
        tests+=(--test "$test")
    done
    RINGMAIL_RECORD_LAYER=rustls limited "$TESTS_LIMIT" "${CRATE_TESTS[@]}" "${tests[@]}"
}

# Whole sidecars on rustls's record layer, under what is hostile and what is merely much. Their figures are those of the other.
hostile_to_the_reference_layer() {
    RINGMAIL_RECORD_LAYER=rustls RINGMAIL_EVIDENCE=$(mktemp -d) limited "$NIGHTLY_LIMIT" cargo test --locked --no-fail-fast \
        --workspace --test adversary --test streams --test drains -- --test-threads=1
}

# Looks for bytes that the two record layers take differently.
differential() {
    local seconds=$1 test=tls::record::tests::differential
    # A filter that matches nothing would hold too.
    "${CRATE_TESTS[@]}" --lib -- --list "$test" | grep ': test$' || return 1
    RINGMAIL_FUZZ_SECONDS=$seconds limited "$((seconds + FUZZ_GRACE_SECONDS))s" \
        "${CRATE_TESTS[@]}" --lib -- --nocapture "$test"
}

# Each target for its share of the hour.
fuzz_for_an_hour() {
    local targets=(fuzz/corpus/*/)
    scripts/fuzz.sh $((NIGHTLY_FUZZ_SECONDS * $(nproc) / ${#targets[@]}))
}

# Scenarios that measure run alone. Those that mostly wait (for a certificate, a failure detection, a stopped reader) run
# beside each other, and take a third of the time: those of the first list one after the other, beside those of the second.
readonly THAT_WAIT=(alerts drains links secrets) THAT_WAIT_LONG=(rotation sidecar_faults streams)
readonly AT_ONCE=3

scenarios() {
    local limit=$1 test measure=() wait=() wait_long=() log ran status=0
    shift
    # Their programs are those of the build: old ones, or none, would only fail each of them.
    ((built)) || { echo "error: the build failed, so there is nothing to run"; return 1; }
    for test in tests/tests/*.rs tests/tests/*/main.rs; do
        test=${test#tests/tests/} test=${test%.rs} test=${test%/main}
        case " ${THAT_WAIT[*]} / ${THAT_WAIT_LONG[*]} " in
        *" $test "*/*) wait+=(--test "$test") ;;
        */*" $test "*) wait_long+=(--test "$test") ;;
        *) [[ $test == kube ]] || measure+=(--test "$test") ;;
        esac
    done
    local run=(asked_twice limited "$limit" cargo test --locked --no-fail-fast --workspace)
    "${run[@]}" "${measure[@]}" -- --test-threads=1 "$@" || status=1
    log=$(mktemp)
    "${run[@]}" "${wait[@]}" -- --test-threads=1 "$@" &>"$log" &
    ran=$!
    # Whoever interrupts this run means that one too, and it would not hear of it.
    trap 'kill "$ran"; pkill -P "$ran"; exit 130' INT TERM
    "${run[@]}" "${wait_long[@]}" -- --test-threads=$AT_ONCE "$@" || status=1
    wait "$ran" || status=1
    trap - INT TERM
    cat "$log"
    rm -f "$log"
    return $status
}

built=0
# Sets what scenarios ask for.
build() {
    step "build" cargo build --locked --workspace --all-targets
    [[ " ${broken[*]-} " == *" build "* ]] || built=1
}

# Figures of an earlier state are none of this one's.
rm -rf target/evidence

announce "what the tests need"
if [[ $SUITE == e2e ]]; then
    scripts/install-deps.sh
else
    scripts/install-deps.sh kube
fi
source scripts/environment.sh
if [[ $(id -u) -ne 0 ]]; then
    # Tests make namespaces: cargo builds as the caller, and the tests themselves run through sudo.
    host=$(rustc -vV | sed -n 's/^host: //p' | tr 'a-z-' 'A-Z_')
    export "CARGO_TARGET_${host}_RUNNER=sudo -E -H env PATH=$PATH"
fi

# The first time on a machine, the parts of a cluster take ten minutes to build, and what its images stand on some more. They use
# what the compiler leaves of the machine, and are waited for before anything is measured; what failed of it fails again, and is
# seen, where it is used.
build_cluster_meanwhile() {
    local bases=(debian distroless java toolbox)
    ! docker info &>/dev/null || bases=()
    if [[ -n ${KUBECONFIG:-} ]] || { ((${#bases[@]} == 0)) && command -v kind >/dev/null; }; then
        return
    fi
    nice -n 19 bash -c 'scripts/kube-binaries.sh; for base; do scripts/base-image.sh "$base"; done' - "${bases[@]}" &>/dev/null &
}

before_the_scenarios() {
    if wanted checks; then
        step "crates that may be used" unwanted_crates
        step "bills of materials" bills_of_materials
        step "format" cargo fmt --all --check
        step "lints" cargo clippy --locked --workspace --all-targets -- -D warnings
    fi
    build
    wait
    # Where it cannot be fetched, the tests that need it fail and say so.
    RINGMAIL_ENVOY=$(scripts/envoy.sh) && export RINGMAIL_ENVOY || true
    if wanted crates; then
        step "tests of the crates" crate_tests
        step "the proxy on rustls's record layer" reference_layer
    fi
}

# What is as much as a machine can do in a night.
long_ones() {
    ! wanted fuzzing || step "fuzzing, an hour for all targets" fuzz_for_an_hour
    ! wanted planted || step "planted faults are found" scripts/fuzz-planted.sh
    ! wanted licences || step "licences, sources and versions" scripts/deny.sh
    ! wanted reproducible || step "the same programs from two folders" scripts/reproducible.sh
    ! wanted mutants || step "small changes are noticed" scripts/mutants.sh
    ! wanted layers || step "both record layers, an hour of the same bytes" differential "$NIGHTLY_FUZZ_SECONDS"
    ! wanted layers || step "the adversary, streams and drains on rustls's record layer" hostile_to_the_reference_layer
    ! wanted peers || step "other people's TLS as the adversary" scripts/second-opinion.sh
    ! wanted scenarios || step "ignite scenarios, all of them" scenarios "$NIGHTLY_LIMIT" --include-ignored
}

on_kubernetes() {
    begin_beside "release binaries" release_binary
    run_beside &
    step "scenarios on Kubernetes" scripts/e2e-kube.sh
    wait
    for number in "${!beside[@]}"; do
        step "${beside[number]}" ran_beside "$number"
    done
}

case $SUITE in
test)
    build_cluster_meanwhile
    before_the_scenarios
    # Built now: the scenarios' own builds would wait for it.
    step "what is fuzzed" scripts/fuzz.sh 0
    begin_beside "fuzzing" scripts/fuzz.sh
    begin_beside "both record layers, a minute of the same bytes" differential "$FUZZ_SECONDS"
    step "ignite scenarios" scenarios "$E2E_LIMIT"
    on_kubernetes
    ;;
nightly)
    ! wanted kube || build_cluster_meanwhile
    before_the_scenarios
    long_ones
    ! wanted kube || on_kubernetes
    step "the page of what was seen" target/debug/ringmail-evidence page
    ;;
e2e)
    build
    step "ignite scenarios" scenarios "$E2E_LIMIT"
    ;;
e2e-kube) step "scenarios on Kubernetes" scripts/e2e-kube.sh ;;
esac

summed_up "$SUITE"
