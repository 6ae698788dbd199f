# Sourced by the scripts that build images: buildah where it is installed, with a storage of its own in the cache, else Docker.
# shellcheck shell=bash

CACHE=${XDG_CACHE_HOME:-$HOME/.cache}/ringmail

if command -v buildah >/dev/null; then
    BUILDER=buildah
elif docker info &>/dev/null; then
    BUILDER=docker
else
    fail "needs buildah or Docker: run scripts/install-deps.sh kube"
fi

run_buildah() {
    # Inside a container the kernel may refuse an overlay on an overlay: RINGMAIL_STORAGE_DRIVER=vfs copies instead.
    local driver=${RINGMAIL_STORAGE_DRIVER:-overlay}
    as_root buildah --root "$CACHE/images-$driver" --runroot "/run/ringmail-images-$driver" --storage-driver "$driver" "$@"
}

# build_image NAME DOCKERFILE CONTEXT [ARGUMENT...]: any further argument is for the builder.
build_image() {
    local name=$1 dockerfile=$2 context=$3
    shift 3
    if [[ $BUILDER == buildah ]]; then
        # Chroot needs neither user namespaces nor a network of its own.
        run_buildah bud --quiet --isolation chroot --tag "$name" --file "$dockerfile" "$@" "$context" >/dev/null
    else
        docker build --quiet --tag "$name" --file "$dockerfile" "$@" "$context" >/dev/null
    fi
}

# save_image NAME TAR: as docker-archive, which containerd, kind and Docker all load.
save_image() {
    rm -f "$2"
    if [[ $BUILDER == buildah ]]; then
        run_buildah push --quiet "$1" "docker-archive:$2:docker.io/${1#docker.io/}"
        # The image that had this name before has none now.
        run_buildah rmi --prune >/dev/null
    else
        docker save --output "$2" "$1"
    fi
}
