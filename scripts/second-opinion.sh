#!/usr/bin/env bash
# What the project's own adversary finds, told again by other people's TLS: tlslite-ng (Python) and `openssl s_client` attack
# the inbound side of a real ringmail-proxy behind its real rules, each case with the alert and the reason that it must end with.
# Needs root, and the programs: cargo build --workspace --bins.
set -euo pipefail
source "$(dirname "$0")/environment.sh"

readonly PACKAGE=tlslite-ng==0.8.2
readonly VENV=$PWD/target/second-opinion/${PACKAGE##*=}
readonly BUILT=${RINGMAIL_PROGRAMS:-$CARGO_TARGET_DIR/debug}
readonly SERVER=ringmail-opinion-server CLIENT=ringmail-opinion-client
readonly SERVER_ADDRESS=10.88.0.1 CLIENT_ADDRESS=10.88.0.2 PORT=7777
readonly PROXY_USER=1337
readonly READY_SECONDS=30

[[ $(id -u) -eq 0 ]] || fail "it makes network namespaces: run it as root"
if [[ ! -x $VENV/bin/python ]] || ! "$VENV/bin/python" -c 'import tlslite' 2>/dev/null; then
    python3 -m venv "$VENV"
    "$VENV/bin/pip" install --quiet "$PACKAGE"
fi

folder=$(mktemp -d)
processes=()
clean_up() {
    ((${#processes[@]})) && kill -KILL "${processes[@]}" 2>/dev/null || true
    ip netns del "$SERVER" 2>/dev/null || true
    ip netns del "$CLIENT" 2>/dev/null || true
    rm -rf "$folder"
}
trap clean_up EXIT

ip netns add "$SERVER"
ip netns add "$CLIENT"
ip -n "$SERVER" link add eth0 type veth peer name eth0 netns "$CLIENT"
ip -n "$SERVER" addr add "$SERVER_ADDRESS/24" dev eth0
ip -n "$CLIENT" addr add "$CLIENT_ADDRESS/24" dev eth0
for namespace in "$SERVER" "$CLIENT"; do
    ip -n "$namespace" link set lo up
    ip -n "$namespace" link set eth0 up
done

"$VENV/bin/python" scripts/second_opinion.py papers "$folder"
mkdir "$folder/policy" "$folder/state"
cat >"$folder/policy/strict.yaml" <<YAML
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: default, namespace: istio-system}
spec: {mtls: {mode: STRICT}}
YAML
cat >"$folder/proxy.yaml" <<YAML
namespace: ignite
service_account: node
identity_source: files
cert_file: $folder/node.crt
key_file: $folder/node.key
bundle_file: $folder/root.crt
policy_dir: $folder/policy
state_dir: $folder/state
YAML
# Where they were built, the proxy's user may not be able to reach them.
cp "$BUILT/ringmail-proxy" "$BUILT/ringmail-init" "$folder"
chown -R "$PROXY_USER:$PROXY_USER" "$folder"
chmod -R u+rwX,go+rX "$folder"

in_server() { ip netns exec "$SERVER" "$@"; }
in_server "$folder/ringmail-init"
# In the place of the shell that would wait for it: what is told to end is the process itself.
begin_in_server() {
    exec ip netns exec "$SERVER" "$@"
}
begin_in_server "$VENV/bin/python" scripts/second_opinion.py echo "$SERVER_ADDRESS" "$PORT" &
processes+=($!)
begin_in_server setpriv --reuid "$PROXY_USER" --regid "$PROXY_USER" --clear-groups \
    "$folder/ringmail-proxy" --config "$folder/proxy.yaml" >"$folder/access.log" 2>"$folder/proxy.log" &
processes+=($!)
ready() { in_server "$VENV/bin/python" scripts/second_opinion.py ready "$SERVER_ADDRESS" 2>/dev/null; }
until ready; do
    ((SECONDS < READY_SECONDS)) || { cat "$folder/proxy.log"; fail "the proxy is not ready"; }
    sleep 0.2
done
ip netns exec "$CLIENT" "$VENV/bin/python" scripts/second_opinion.py attack "$folder" "$SERVER_ADDRESS" "$PORT" |
    tee "$folder/said"
told=$(tail -n 1 "$folder/said")
for row in A2 A10 A11; do
    "$BUILT/ringmail-evidence" tell "$row" "cases of tlslite-ng and openssl with their alert and reason" "${told#== }" \
        exactly scripts/second-opinion.sh
done
