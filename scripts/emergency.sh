#!/usr/bin/env bash
# Takes a namespace to plaintext and back, with no pod restarted (docs/emergency.md).
#   scripts/emergency.sh plaintext NAMESPACE
#   scripts/emergency.sh back NAMESPACE
# KUBECTL names another kubectl. What the namespace's PeerAuthentications said is kept in its ConfigMap `ringmail-emergency`.
# They are changed in place and never made anew: of several the oldest holds, and a new one would be the youngest.
set -euo pipefail

readonly KUBECTL=${KUBECTL:-kubectl} SAVED=ringmail-emergency
# News reach every sidecar within two seconds.
readonly SETTLE=${RINGMAIL_SETTLE:-5}

usage() {
    echo "usage: $0 plaintext|back NAMESPACE" >&2
    exit 64
}
(($# == 2)) || usage
readonly namespace=$2

k() {
    "$KUBECTL" --namespace "$namespace" --request-timeout=20s "$@"
}

say() {
    printf '%s\n' "$*" >&2
}

# A line for each policy: its name, a tab, its spec.
policies() {
    k get peerauthentications.security.istio.io -o jsonpath='{range .items[*]}{.metadata.name}{"\t"}{.spec}{"\n"}{end}'
}

is_saved() {
    local found
    # Not in a pipe: what kubectl cannot find out must not count as a no. `if` switches `set -e` off in here.
    found=$(k get configmap "$SAVED" --ignore-not-found -o name) || exit 1
    [[ -n $found ]]
}

saved() {
    k get configmap "$SAVED" -o jsonpath='{.data.policies}'
}

set_mode() {
    printf 'apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {name: default}\nspec: {mtls: {mode: %s}}\n' "$1" | k apply -f -
}

plaintext() {
    local before name spec
    # A second time, say after the first was cut off, what was saved is still what was before.
    if is_saved; then
        before=$(saved)
    else
        before=$(policies)
        k create configmap "$SAVED" --from-literal=policies="$before"
    fi
    # First everybody is admitted: plaintext has no identity that a rule could name.
    k apply -f - <<'END'
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: emergency-plaintext}
spec: {action: ALLOW, rules: [{}]}
END
    while IFS=$'\t' read -r name spec; do
        [[ -z $name ]] || k patch peerauthentications.security.istio.io "$name" --type=merge \
            -p '{"spec":{"mtls":{"mode":"DISABLE"},"portLevelMtls":null}}'
    done <<<"$before"
    grep -q $'^default\t' <<<"$before" || set_mode DISABLE
    say "new connections to $namespace are plaintext in two seconds; what is open stays as it is"
    if "$KUBECTL" get destinationrules.networking.istio.io --all-namespaces -o jsonpath='{.items[*].spec.trafficPolicy}' 2>/dev/null | grep -q MUTUAL; then
        say "beware: a DestinationRule asks for mutual TLS; where it names $namespace, set it to DISABLE as well"
    fi
    if k get authorizationpolicies.security.istio.io -o jsonpath='{.items[*].spec.action}' | grep -q DENY; then
        say "beware: a DENY in $namespace still holds; one that names identities refuses plaintext"
    fi
}

back() {
    local before name spec
    if ! is_saved; then
        say "$namespace is not in plaintext by this script: it has no ConfigMap $SAVED, so there is nothing to go back to"
        if k get authorizationpolicies.security.istio.io emergency-plaintext --ignore-not-found -o name | grep -q .; then
            say "its AuthorizationPolicy emergency-plaintext was applied by hand; the way back from that: docs/emergency.md"
        fi
        exit 1
    fi
    before=$(saved)
    # Mutual TLS for what is new, while plaintext that is open may go on.
    while IFS=$'\t' read -r name spec; do
        [[ -z $name ]] || k patch peerauthentications.security.istio.io "$name" --type=merge -p '{"spec":{"mtls":{"mode":"PERMISSIVE"}}}'
    done <<<"$before"
    grep -q $'^default\t' <<<"$before" || set_mode PERMISSIVE
    say "new connections of the mesh are mutual TLS again; in $SETTLE s what was before holds, and STRICT ends what is still plaintext"
    sleep "$SETTLE"
    while IFS=$'\t' read -r name spec; do
        [[ -z $name ]] || k patch peerauthentications.security.istio.io "$name" --type=json \
            -p "[{\"op\":\"replace\",\"path\":\"/spec\",\"value\":${spec:-{\}}}]"
    done <<<"$before"
    grep -q $'^default\t' <<<"$before" || k delete peerauthentications.security.istio.io default --ignore-not-found
    k delete authorizationpolicies.security.istio.io emergency-plaintext --ignore-not-found
    k delete configmap "$SAVED"
}

case $1 in
plaintext | back) "$1" ;;
*) usage ;;
esac
