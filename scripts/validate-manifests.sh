#!/usr/bin/env bash
# Renders each kustomization of manifests/ and has the API server of $KUBECONFIG judge it and the policies (dry run on the server):
# fields, admission, expressions, Pod Security. What a dry run needs is made first and removed again.
#   scripts/validate-manifests.sh
# KUBECTL names another kubectl (1.29 or newer). Where the cluster has no definitions of Istio's kinds, they are made as
# control makes them, which leave the spec of a policy to whoever reads it.
# A warning of the API server is a fault, because the warnings are about fields it does not know and pods it would not admit.
# Kinds that the cluster does not serve (cert-manager's, where it is not installed) are named, and not judged.
set -euo pipefail
source "$(dirname "$0")/environment.sh"

[[ -n ${KUBECONFIG:-} ]] || fail "KUBECONFIG names no cluster"
readonly KUBECTL=${KUBECTL:-kubectl}
readonly ISTIO=(
    PeerAuthentication.security.istio.io AuthorizationPolicy.security.istio.io
    DestinationRule.networking.istio.io WorkloadEntry.networking.istio.io
)
# Bounds every word with the API server.
readonly TIMEOUT=(--request-timeout=30s)

work=$(mktemp -d)
made_namespaces=()
made_crds=()

clean_up() {
    local status=$?
    if ((${#made_namespaces[@]})); then
        "$KUBECTL" delete namespace "${made_namespaces[@]}" --timeout=60s >/dev/null || status=1
    fi
    if ((${#made_crds[@]})); then
        "$KUBECTL" delete crd "${made_crds[@]}" --timeout=60s >/dev/null || status=1
    fi
    rm -rf "$work"
    exit "$status"
}
trap clean_up EXIT

exists() {
    "$KUBECTL" get "$@" --ignore-not-found -o name "${TIMEOUT[@]}" | grep -q .
}

# Labels so that the server tells of each pod that the restricted standard would not admit.
make_namespace() {
    if exists namespace "$1"; then
        return
    fi
    "$KUBECTL" create namespace "$1" --save-config "${TIMEOUT[@]}" >/dev/null
    made_namespaces+=("$1")
    "$KUBECTL" label namespace "$1" pod-security.kubernetes.io/warn=restricted "${TIMEOUT[@]}" >/dev/null
}

plural_of() {
    local singular=${1,,}
    [[ $singular == *y ]] && echo "${singular%y}ies" || echo "${singular}s"
}

define() {
    local kind=${1%%.*} group=${1#*.}
    cat <<END
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: $(plural_of "$kind").$group}
spec:
  group: $group
  scope: Namespaced
  names: {kind: $kind, plural: $(plural_of "$kind"), singular: ${kind,,}}
  versions:
  - name: v1
    served: true
    storage: true
    schema:
      openAPIV3Schema:
        type: object
        properties:
          spec: {type: object, x-kubernetes-preserve-unknown-fields: true}
END
}

make_crds() {
    local kind crd
    for kind in "${ISTIO[@]}"; do
        crd=$(plural_of "${kind%%.*}").${kind#*.}
        exists crd "$crd" && continue
        define "$kind" | "$KUBECTL" create "${TIMEOUT[@]}" -f - >/dev/null
        made_crds+=("$crd")
    done
    if ((${#made_crds[@]})); then
        "$KUBECTL" wait --for=condition=Established --timeout=30s "${made_crds[@]/#/crd/}" >/dev/null
    fi
}

# Which of a rendering's API groups the cluster does not serve.
unserved() {
    sed -n 's/^apiVersion: \(.*\/.*\)$/\1/p' "$1" | sort -u | grep -vxF -f "$work/served" || true
}

# Takes the documents of some API versions out of a rendering.
without() {
    awk -v refused="$2" 'BEGIN { count = split(refused, names, " "); for (i = 1; i <= count; i++) out[names[i]] = 1; RS = "---\n" }
        { keep = 1; lines = split($0, line, "\n")
          for (i = 1; i <= lines; i++) if (line[i] ~ /^apiVersion: / && (substr(line[i], 13) in out)) keep = 0
          if (keep) printf "---\n%s", $0 }' "$1"
}

render() {
    "$KUBECTL" kustomize "$1" >"$2" && return
    echo "REFUSED  $1" >&2
    faults=$((faults + 1))
    return 1
}

# judge NAME FILE [option...]
judge() {
    local name=$1 file=$2 said
    shift 2
    if ! said=$("$KUBECTL" apply --dry-run=server --validate=strict -f "$file" "$@" "${TIMEOUT[@]}" 2>&1) || grep -q '^Warning' <<<"$said"; then
        printf 'REFUSED  %s\n%s\n' "$name" "$(grep -v '(server dry run)$' <<<"$said")" >&2
        faults=$((faults + 1))
        return
    fi
    echo "ok       $name ($(grep -c 'dry run' <<<"$said") objects)"
}

faults=0
for namespace in ringmail-system ignite gridgain istio-system; do
    make_namespace "$namespace"
done
make_crds
"$KUBECTL" api-versions "${TIMEOUT[@]}" >"$work/served"

mapfile -t kustomizations < <(grep -lx 'kind: Kustomization' --include=kustomization.yaml -r manifests | sort | xargs -n1 dirname)
# Components are judged with the base that they are for.
mapfile -t components < <(grep -lx 'kind: Component' --include=kustomization.yaml -r manifests | sort | xargs -n1 dirname)
for component in "${components[@]}"; do
    base=$(dirname "$(dirname "$component")")/base
    if [[ $component == */mounted-signer ]]; then
        continue # Its overlays are judged, which say what is mounted.
    fi
    # Kustomize takes no absolute paths.
    printf 'apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\nresources: [%s]\ncomponents: [%s]\n' \
        "$(realpath --relative-to="$work" "$base")" "$(realpath --relative-to="$work" "$component")" >"$work/kustomization.yaml"
    render "$work" "$work/component.yaml" || continue
    judge "$base with $component" "$work/component.yaml"
done
for kustomization in "${kustomizations[@]}"; do
    render "$kustomization" "$work/rendered.yaml" || continue
    skipped=$(unserved "$work/rendered.yaml" | tr '\n' ' ')
    without "$work/rendered.yaml" "$skipped" >"$work/judged.yaml"
    judge "$kustomization${skipped:+, without ${skipped% }, which this cluster does not serve}" "$work/judged.yaml"
done
for policy in manifests/policies/*.yaml; do
    # Those for any namespace name none.
    options=()
    grep -q '^  namespace:' "$policy" || options=(-n ignite)
    judge "$policy" "$policy" "${options[@]}"
done

((faults == 0)) || fail "$faults of the manifests were refused"
echo "all manifests are what this API server takes"
