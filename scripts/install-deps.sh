#!/usr/bin/env bash
# Installs what building, testing and the demo need and the machine lacks. Names it first. A second run does nothing.
#   scripts/install-deps.sh         for everything but Kubernetes
#   scripts/install-deps.sh bench   also what the benchmark measures and measures with
#   scripts/install-deps.sh kube    also what a Kubernetes of plain processes is made of, and what builds images
set -euo pipefail
source "$(dirname "$0")/environment.sh"

readonly WANTED=${1:-}
readonly RUSTUP=https://sh.rustup.rs

# The first of these packages that the machine's release has. Ignite 2 is tested on Java 17.
readonly JDKS=(openjdk-17-jdk-headless openjdk-21-jdk-headless default-jdk-headless)

missing_packages() {
    { command -v cc && command -v c++ && command -v make; } >/dev/null || echo build-essential
    command -v conntrack >/dev/null || echo conntrack
    command -v curl >/dev/null || echo curl
    [[ -e /etc/ssl/certs/ca-certificates.crt ]] || echo ca-certificates
    command -v git >/dev/null || echo git
    command -v ip >/dev/null || echo iproute2
    command -v iptables-restore >/dev/null || echo iptables
    command -v mvn >/dev/null || echo maven
    command -v javac >/dev/null || echo jdk
    command -v openssl >/dev/null || echo openssl
    { command -v prometheus && command -v promtool; } >/dev/null || echo prometheus
    [[ -e /usr/lib/fiu/fiu_posix_preload.so ]] || echo fiu-utils
    command -v strace >/dev/null || echo strace
    command -v valgrind >/dev/null || echo valgrind
    python3 -c 'import ensurepip, venv' 2>/dev/null || echo python3-venv
    [[ $WANTED != bench ]] || missing_for_benchmark
    [[ $WANTED != kube ]] || missing_for_kubernetes
}

missing_for_benchmark() {
    [[ -x /usr/sbin/haproxy ]] || echo haproxy
}

missing_for_kubernetes() {
    command -v etcd >/dev/null || echo etcd-server
    { command -v containerd && command -v ctr; } >/dev/null || echo containerd
    command -v runc >/dev/null || echo runc
    [[ -x /usr/lib/cni/ptp ]] || echo containernetworking-plugins
    command -v buildah >/dev/null || echo buildah
    command -v mmdebstrap >/dev/null || echo mmdebstrap
    { command -v strip && cc -static -x c -o /dev/null - <<<'int main(void) { return 0; }'; } &>/dev/null ||
        echo build-essential
}

# What builds Kubernetes: the first Go that fetches by itself the one that a go.mod asks for is 1.21.
check_go() {
    local go
    go=$(command -v go || command -v /usr/local/go/bin/go) ||
        fail "needs Go 1.21 or newer to build Kubernetes: install it from https://go.dev/dl into /usr/local/go"
    [[ $("$go" env GOVERSION) =~ ^go1\.([0-9]+) ]] && ((BASH_REMATCH[1] >= 21)) ||
        fail "$go is $("$go" version), expected 1.21 or newer: install it from https://go.dev/dl into /usr/local/go"
    echo "Kubernetes is built by $("$go" version)"
}

# Several of the packages start a service as they are installed. The cluster of the tests starts its own.
without_services() {
    local policy=/usr/sbin/policy-rc.d status=0
    if [[ -e $policy ]]; then
        "$@"
        return
    fi
    printf '#!/bin/sh\nexit 101\n' | as_root tee "$policy" >/dev/null
    as_root chmod +x "$policy"
    "$@" || status=$?
    as_root rm "$policy"
    return $status
}

choose_jdk() {
    local jdk
    for jdk in "${JDKS[@]}"; do
        if [[ -n $(apt-cache search --names-only "^$jdk\$") ]]; then
            echo "$jdk"
            return
        fi
    done
    fail "no Java 17 or newer among this release's packages (looked for ${JDKS[*]})"
}

install_packages() {
    local packages=("$@") index
    command -v apt-get >/dev/null || fail "missing: ${packages[*]}; there is no apt-get here, install them by hand"
    echo "missing, installed now with apt-get: ${packages[*]}"
    persistently as_root apt-get -qq update
    for index in "${!packages[@]}"; do
        if [[ ${packages[index]} == jdk ]]; then
            packages[index]=$(choose_jdk)
            echo "the jdk is ${packages[index]}"
        fi
    done
    without_services persistently as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends "${packages[@]}"
}

install_rust() {
    if ! command -v rustup >/dev/null && ! command -v cargo >/dev/null; then
        echo "missing, installed now into $HOME/.cargo: rustup, from $RUSTUP"
        curl --proto '=https' --tlsv1.2 -sSf "$RUSTUP" | sh -s -- -y --quiet --profile minimal --default-toolchain none
        PATH=$HOME/.cargo/bin:$PATH
    fi
    local channel
    channel=$(sed -n 's/^channel = "\(.*\)"/\1/p' rust-toolchain.toml)
    if command -v rustup >/dev/null; then
        if ! rustup toolchain list | grep -q "^$channel-"; then
            echo "missing, installed now with rustup: Rust $channel with clippy and rustfmt"
            persistently rustup toolchain install "$channel" --profile minimal --component clippy --component rustfmt
        fi
    elif [[ $(cargo --version) != "cargo $channel"* ]]; then
        fail "cargo is $(cargo --version), expected $channel: install it, or rustup, which does it by itself"
    fi
}

[[ -z $WANTED || $WANTED == bench || $WANTED == kube ]] || fail "argument $WANTED: expected bench, kube, or none"
mapfile -t packages < <(missing_packages)
if ((${#packages[@]})); then
    install_packages "${packages[@]}"
fi
install_rust
[[ $WANTED != kube ]] || check_go
echo "everything needed is installed: $(cargo --version), $(java -version 2>&1 | head -1)"
