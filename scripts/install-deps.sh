#!/usr/bin/env bash
# Installs what building, testing and the demo need and the machine lacks. Names it first. A second run does nothing.
set -euo pipefail
source "$(dirname "$0")/environment.sh"

readonly RUSTUP=https://sh.rustup.rs

# The first of these packages that the machine's release has. Ignite 2 is tested on Java 17.
readonly JDKS=(openjdk-17-jdk-headless openjdk-21-jdk-headless default-jdk-headless)

missing_packages() {
    { command -v cc && command -v make; } >/dev/null || echo build-essential
    command -v curl >/dev/null || echo curl
    [[ -e /etc/ssl/certs/ca-certificates.crt ]] || echo ca-certificates
    command -v git >/dev/null || echo git
    command -v ip >/dev/null || echo iproute2
    command -v iptables-restore >/dev/null || echo iptables
    command -v mvn >/dev/null || echo maven
    command -v javac >/dev/null || echo jdk
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
    as_root apt-get -qq update
    for index in "${!packages[@]}"; do
        if [[ ${packages[index]} == jdk ]]; then
            packages[index]=$(choose_jdk)
            echo "the jdk is ${packages[index]}"
        fi
    done
    as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends "${packages[@]}"
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
            rustup toolchain install "$channel" --profile minimal --component clippy --component rustfmt
        fi
    elif [[ $(cargo --version) != "cargo $channel"* ]]; then
        fail "cargo is $(cargo --version), expected $channel: install it, or rustup, which does it by itself"
    fi
}

mapfile -t packages < <(missing_packages)
if ((${#packages[@]})); then
    install_packages "${packages[@]}"
fi
install_rust
echo "everything needed is installed: $(cargo --version), $(java -version 2>&1 | head -1)"
