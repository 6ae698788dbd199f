# Sourced by the other scripts: where the repository is, how to become root, how a step is announced.
# shellcheck shell=bash

cd "$(dirname "${BASH_SOURCE[0]}")/.."

# What is built is looked for there, wherever the caller's cargo puts what it builds.
export CARGO_TARGET_DIR=$PWD/target

# A toolchain that install-deps.sh has just installed is found without a new login.
if [[ -n ${HOME:-} && -d $HOME/.cargo/bin ]]; then
    PATH=$HOME/.cargo/bin:$PATH
fi
# iptables and ip live here, and a user's PATH on Debian may lack it.
PATH=$PATH:/usr/sbin:/sbin
export PATH

announce() {
    printf '\n== %s\n' "$*"
}

fail() {
    printf '%s: %s\n' "$(basename "$0")" "$*" >&2
    exit 1
}

# Runs a command as root: directly, or through sudo with the caller's environment, but with the home of root: what it caches
# there would otherwise belong to root in the home of the caller.
as_root() {
    if [[ $(id -u) -eq 0 ]]; then
        "$@"
    elif command -v sudo >/dev/null; then
        sudo -E -H env "PATH=$PATH" "$@"
    else
        fail "needs root for: $* (run as root, or install sudo)"
    fi
}
