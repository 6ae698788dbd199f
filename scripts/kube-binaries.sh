#!/usr/bin/env bash
# Builds what the cluster of the tests is made of and Debian does not have: Kubernetes, CoreDNS and the image that holds a pod's
# namespaces. Everything is pinned by the go.sum files under tests/kube, built once into a cache folder named after them, and
# skipped when it is there. Prints that folder on stdout; all else goes to stderr.
set -euo pipefail
source "$(dirname "$0")/environment.sh"

readonly RELEASE=v1.34.2
readonly COMMANDS=(kube-apiserver kubelet kube-controller-manager kube-scheduler kube-proxy kubectl)
readonly KUBERNETES=tests/kube/kubernetes COREDNS=tests/kube/coredns
# Kubelet and containerd ask for the image by this name; no registry has it.
readonly PAUSE_IMAGE=docker.io/local/pause:1

command -v go >/dev/null || PATH=$PATH:/usr/local/go/bin
command -v go >/dev/null || fail "needs go: run scripts/install-deps.sh kube"

hash=$(cat "$KUBERNETES"/go.{mod,sum} "$COREDNS"/go.{mod,sum} scripts/kube-binaries.sh | sha256sum | cut -c 1-16)
folder=${XDG_CACHE_HOME:-$HOME/.cache}/ringmail/kube-$hash
mkdir -p "$folder"
# Two runs at once make it together, one after the other.
exec 9>"$folder/lock"
flock 9

export CGO_ENABLED=0 GOFLAGS="-mod=readonly -trimpath -buildvcs=false"

# Has a command make a file under a temporary name, then gives it its own, so that a killed run leaves nothing half made.
make_once() {
    local target=$folder/$1
    shift
    [[ -e $target ]] && return
    echo "building $(basename "$target") into $folder" >&2
    "$@" "$target.partial" >&2
    mv "$target.partial" "$target"
}

build_kubernetes() {
    persistently go -C "$KUBERNETES" build -ldflags "-s -w -X k8s.io/component-base/version.gitVersion=$RELEASE" \
        -o "$2" "k8s.io/kubernetes/cmd/$1"
}

build_coredns() {
    persistently go -C "$COREDNS" build -ldflags "-s -w" -o "$1" .
}

# An image of one layer with one program, the release's own, as `docker save` would write it.
build_pause() {
    local work source digest
    work=$(mktemp -d)
    # A module has a folder only once it is here.
    persistently go -C "$KUBERNETES" mod download k8s.io/kubernetes
    source=$(go -C "$KUBERNETES" list -m -f '{{.Dir}}' k8s.io/kubernetes)/build/pause/linux/pause.c
    mkdir "$work/root"
    cc -static -Os -s -DVERSION="$RELEASE" -o "$work/root/pause" "$source"
    tar --sort=name --mtime=@0 --owner=0 --group=0 -C "$work/root" -cf "$work/layer.tar" pause
    rm -r "$work/root"
    digest=$(sha256sum <"$work/layer.tar" | cut -d ' ' -f 1)
    cat >"$work/config.json" <<JSON
{"architecture":"$(go env GOARCH)","os":"linux","config":{"Entrypoint":["/pause"],"User":"65535:65535"},
 "rootfs":{"type":"layers","diff_ids":["sha256:$digest"]},"history":[{"created_by":"pause"}]}
JSON
    cat >"$work/manifest.json" <<JSON
[{"Config":"config.json","RepoTags":["$PAUSE_IMAGE"],"Layers":["layer.tar"]}]
JSON
    tar -C "$work" -cf "$1" manifest.json config.json layer.tar
    rm -r "$work"
}

make_once pause.tar build_pause
for name in "${COMMANDS[@]}"; do
    make_once "$name" build_kubernetes "$name"
done
make_once coredns build_coredns
echo "$folder"
