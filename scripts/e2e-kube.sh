#!/usr/bin/env bash
# Ringmail on a real Kubernetes: brings a cluster, builds and loads the images, and runs every scenario on it.
#   scripts/e2e-kube.sh           all of them
#   scripts/e2e-kube.sh NAME...   those of tests/tests/kube whose names contain one of these
#   scripts/e2e-kube.sh scale     the measurement with 1,000 simulated proxies alone (docs/discovery.md)
# The cluster is the one of KUBECONFIG where that is set (RINGMAIL_KUBE_LOAD_IMAGE loads an archive into it); else kind, where
# Docker answers and kind is installed; else two nodes of plain processes. What was brought is taken away again.
# RINGMAIL_KUBE_KEEP=1 leaves it, with the mesh in it, for another run: `lab-kube up` says how to reach it.
# Of plain processes there are two for a run of everything: what wants a cluster for itself has the second, beside the rest.
set -euo pipefail
source "$(dirname "$0")/environment.sh"

# A hang must end the run. Scenarios have deadlines of their own below these.
SCENARIOS_LIMIT=40m
[[ ${RINGMAIL_NIGHTLY:-} != 1 ]] || SCENARIOS_LIMIT=90m # absences last for minutes then
readonly SCENARIOS_LIMIT PARTS_LIMIT=10m SCALE_LIMIT=6m
# Of those that start no more than a few small pods. Those of grids run one after the other on each cluster: three grids at once on
# two cores have each other's nodes wait for longer than their clients do.
readonly AT_ONCE=${RINGMAIL_KUBE_AT_ONCE:-2}
readonly NODES=2
readonly PROGRAMS=(ringmail-ca ringmail-control ringmail-init ringmail-proxy)
readonly IMAGES=(proxy proxy-distroless init ca control ignite-test toolbox)
# Which of them have a next version too, for the scenario of two versions side by side. What programs the capture is the same.
readonly NEXT_PROGRAMS=(ringmail-ca ringmail-control ringmail-proxy)
readonly NEXT_IMAGES=(proxy init ca control)
readonly LAB=target/debug/lab-kube
readonly SYSTEM=ringmail-system CONTROL_PLANE=(deployment/ringmail-ca deployment/ringmail-control) REPLICAS=2
# The longest of those that want a cluster for themselves: it takes the first one once the others there are over.
readonly LAST_ALONE=alone::versions
readonly SCALE_TABLE=target/kube-scale.txt ALONE_LOG=target/kube-alone.log
# Seconds until those that a change of the control plane has ended are gone: their grace period and some more.
readonly GONE_WITHIN=60
KIND_NAME=ringmail-e2e-$$
readonly KIND_NAME

export RUST_BACKTRACE=${RINGMAIL_BACKTRACE:-0}
brought=
plain=()
second=
alone=
scaled=

take_away() {
    local status=$? number
    [[ -z $alone ]] || kill "$alone" || true
    replicas_back || status=1
    case $brought in
    kind) kind delete cluster --name "$KIND_NAME" || status=1 ;;
    plain)
        for number in "${plain[@]}"; do
            [[ ${RINGMAIL_KUBE_KEEP:-} == 1 ]] || as_root "$LAB" --cluster "$number" down || status=1
        done
        ;;
    esac
    exit "$status"
}
trap take_away EXIT

# Symbols are most of a program of this profile, and an image of them takes as long to load.
#   stripped FOLDER PROGRAM...
stripped() {
    local folder=$1 program
    shift
    mkdir -p "$folder"
    for program; do
        strip -o "$folder/$program" "target/debug/$program"
    done
}

# The next version first: cargo puts a program of either into the same place, while what both are made of is kept side by
# side, so that it costs five crates of our own once, and in a later run what has changed in them. Everything here is built of the
# whole workspace: for a part of it, cargo chooses other features of what is below, and builds most of that again.
build() {
    local features
    features=$(printf '%s/next-schema,' "${NEXT_PROGRAMS[@]}")
    # The example is there because examples, too, have a say in features.
    cargo build --locked --workspace "${NEXT_PROGRAMS[@]/#/--bin=}" --example proxies --features "$features"
    stripped target/kube-next "${NEXT_PROGRAMS[@]}"
    cargo build --locked --workspace --bins --examples
    stripped target/kube-bin "${PROGRAMS[@]}"
    cp target/kube-bin/ringmail-init target/kube-next
}

bring_kind() {
    local config
    config=$(printf 'kind: Cluster\napiVersion: kind.x-k8s.io/v1alpha4\nnetworking: {ipFamily: dual}\nnodes: [{role: control-plane}, {role: worker}]\n')
    kind create cluster --name "$KIND_NAME" --wait 180s --kubeconfig target/kind.kubeconfig --config - <<<"$config"
    brought=kind
    KUBECONFIG=$PWD/target/kind.kubeconfig
    RINGMAIL_KUBE_LOAD_IMAGE="kind load image-archive --name $KIND_NAME"
}

bring_plain() {
    local folder
    folder=$(scripts/kube-binaries.sh)
    export RINGMAIL_KUBE_BINARIES=$folder
    PATH=$folder:$PATH
    as_root "$LAB" kubeconfig &>/dev/null || brought=plain
    bring_plain_one 0
    KUBECONFIG=$kubeconfig
    if [[ $brought == plain ]] && (($# == 0)); then
        bring_plain_one 1
        second=$kubeconfig
    fi
    RINGMAIL_KUBE_LOAD_IMAGE="$PWD/$LAB load"
}

# Its processes and files are root's; the tests become root by themselves, and `kubectl` here has a copy of the kubeconfig.
bring_plain_one() {
    plain+=("$1")
    as_root "$LAB" --cluster "$1" up --nodes "$NODES" </dev/null
    kubeconfig=$(as_root "$LAB" --cluster "$1" kubeconfig)
    if [[ ! -r $kubeconfig ]]; then
        (umask 077 && as_root cat "$kubeconfig" >"target/plain-$1.kubeconfig")
        kubeconfig=$PWD/target/plain-$1.kubeconfig
    fi
}

bring_cluster() {
    if [[ -n ${KUBECONFIG:-} ]]; then
        echo "the cluster of KUBECONFIG"
    elif command -v kind >/dev/null && docker info &>/dev/null; then
        bring_kind
    else
        bring_plain "$@"
    fi
    export KUBECONFIG RINGMAIL_KUBE_LOAD_IMAGE PATH
    kubectl version
}

# load_images TAG BINARIES OUT IMAGE...
load_images() {
    local bases=(--local-bases) tag=$1 binaries=$2 out=$3 archives archive building
    shift 3
    ! docker info &>/dev/null || bases=()
    exec {archives}< <(scripts/images.sh "${bases[@]}" --tag "$tag" --binaries "$binaries" --out "$out" "$@" | grep '\.tar$')
    building=$!
    while IFS= read -r -u "$archives" archive; do
        load_archive "$archive"
    done
    exec {archives}<&-
    # What came to an end in the middle of it has been read like the rest.
    wait "$building"
}

# Into a cluster of plain processes beside the others: each waits for its own disk and its own core.
load_archive() {
    local number load loading=() one
    if ((${#plain[@]} == 0)); then
        # A command with its arguments, as a user writes it.
        read -r -a load <<<"$RINGMAIL_KUBE_LOAD_IMAGE"
        "${load[@]}" "$1"
    fi
    for number in "${plain[@]}"; do
        as_root "$LAB" --cluster "$number" load "$1" &
        loading+=($!)
    done
    for one in "${loading[@]}"; do
        wait "$one"
    done
}

# This machine's address as the API server sees it: a test is the webhook that it calls.
address_here() {
    local server
    server=$(kubectl config view --minify -o 'jsonpath={.clusters[0].cluster.server}')
    server=${server#https://}
    ip route get "${server%:*}" | sed -n 's/.* src \([^ ]*\).*/\1/p'
}

# What needs a cluster and has tests of its own beside the scenarios: they want it without the mesh.
parts() {
    local status=0
    local test=(timeout "$PARTS_LIMIT" cargo test --locked --no-fail-fast --workspace)
    RINGMAIL_TEST_KUBECTL=kubectl
    RINGMAIL_TEST_ADDRESS=$(address_here)
    export RINGMAIL_TEST_KUBECTL RINGMAIL_TEST_ADDRESS
    # Two minutes of tests of the tests' own cluster, which whatever follows uses too.
    [[ ${RINGMAIL_NIGHTLY:-} != 1 ]] || "${test[@]}" --test cluster -- --ignored --test-threads=1 || status=1
    "${test[@]}" --test wire kube_real -- --ignored --test-threads=1 || status=1
    "${test[@]}" --test api_server -- --ignored --test-threads=1 || status=1
    return $status
}

# It asks about policies, whose definitions come with the mesh.
commands() {
    timeout "$PARTS_LIMIT" cargo test --locked --no-fail-fast --workspace --test commands -- --ignored --test-threads=1
}

# scenarios HOW_MANY_AT_ONCE [NAME...]
scenarios() {
    local at_once=$1
    shift
    asked_twice timeout "$SCENARIOS_LIMIT" cargo test --locked --no-fail-fast --workspace --test kube -- --ignored "--test-threads=$at_once" "$@"
}

begin_alone() {
    KUBECONFIG=$second scenarios 1 alone:: --skip "$LAST_ALONE" &>"$ALONE_LOG" &
    alone=$!
}

end_alone() {
    local status=0
    wait "$alone" || status=1
    alone=
    cat "$ALONE_LOG"
    return $status
}

# A figure is of one control and one CA, and of processes that have served nobody before: memory once taken is kept.
one_of_each() {
    kubectl apply -k manifests/ringmail || return 1
    rolled_out || return 1
    scaled=1
    kubectl scale --namespace "$SYSTEM" --replicas=1 "${CONTROL_PLANE[@]}" || return 1
    kubectl rollout restart --namespace "$SYSTEM" "${CONTROL_PLANE[@]}" || return 1
    rolled_out || return 1
    # Those that leave still watch what the others do.
    local begin=$SECONDS
    until (($(kubectl get pods --namespace "$SYSTEM" --output name | wc -l) == ${#CONTROL_PLANE[@]})); do
        ((SECONDS - begin < GONE_WITHIN)) || { echo "error: more than one of each after $GONE_WITHIN s"; return 1; }
        sleep 1
    done
}

rolled_out() {
    local part
    for part in "${CONTROL_PLANE[@]}"; do
        kubectl rollout status --namespace "$SYSTEM" --timeout=120s "$part" || return 1
    done
}

replicas_back() {
    [[ -n $scaled ]] || return 0
    scaled=
    kubectl scale --namespace "$SYSTEM" --replicas="$REPLICAS" "${CONTROL_PLANE[@]}" && rolled_out
}

# Processes are looked at in this machine's /proc, and pods are reached from a node's network: both are known of nodes of
# plain processes only.
scale() {
    local number judge=() status=0
    [[ ${RINGMAIL_NIGHTLY:-} != 1 ]] || judge=(--judge-starved)
    if ((${#plain[@]})); then
        number=0 # the one that `lab-kube up` starts
    elif [[ $KUBECONFIG =~ ^/var/lib/ringmail-kube/([0-9]+)/kubeconfig$ ]]; then
        number=${BASH_REMATCH[1]}
    else
        echo "NOT MEASURED: the nodes of this cluster are no plain processes of this machine; docs/discovery.md says how by hand"
        return
    fi
    one_of_each || status=1
    if ((status == 0)); then
        # Control takes 512 connections from one address, and a node on which no pod runs has no second one.
        as_root ip -n "rk$number-node1" address replace "10.200.$number.100/32" dev lo
        as_root nsenter --net="/run/netns/rk$number-node1" timeout "$SCALE_LIMIT" target/debug/examples/proxies --kubeconfig "$KUBECONFIG" \
            "${judge[@]}" --image "docker.io/ringmail/toolbox:$version" --seconds 25 --look 10 | tee "$SCALE_TABLE" || status=1
    fi
    replicas_back || status=1
    return $status
}

only=${1:-}
announce "what a cluster needs"
scripts/install-deps.sh kube
source scripts/environment.sh
announce "programs"
build
announce "cluster"
bring_cluster "$@"
announce "images"
version=$(sed -n '/^\[workspace.package\]/,/^$/s/^version = "\(.*\)"/\1/p' Cargo.toml)
load_images "$version" target/kube-bin target/images "${IMAGES[@]}"
load_images "$version-next" target/kube-next target/images-next "${NEXT_IMAGES[@]}"
failures=0
[[ -z $second ]] || begin_alone
if (($# == 0)); then
    announce "manifests, judged by the API server"
    scripts/validate-manifests.sh || failures=1
    announce "parts on the cluster"
    parts || failures=1
fi
if (($# == 0)); then
    announce "scenarios on the cluster"
    scenarios "$AT_ONCE" --skip alone:: --skip ring:: || failures=1
    scenarios 1 ring:: || failures=1
    announce "scenarios that have a cluster for themselves"
    if [[ -n $second ]]; then
        scenarios 1 "$LAST_ALONE" || failures=1
        end_alone || failures=1
    else
        scenarios 1 alone:: || failures=1
    fi
    announce "commands on the cluster"
    commands || failures=1
fi
if (($#)) && [[ $only != scale ]]; then
    announce "scenarios on the cluster"
    scenarios 1 "$@" || failures=1
fi
if (($# == 0)) || [[ $only == scale ]]; then
    announce "1,000 proxies on one control and one CA"
    scale || failures=1
fi
exit $failures
