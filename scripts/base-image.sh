#!/usr/bin/env bash
# Makes an image to build others on where no registry can be reached: from Debian's packages, by mmdebstrap. Cached by what it
# is made of. Prints the name of the image, which is then in the storage of scripts/images.sh.
#   scripts/base-image.sh debian       a small Debian with curl and iptables
#   scripts/base-image.sh distroless   the C library and the roots of the web's CAs, no shell
#   scripts/base-image.sh java         a small Debian with a Java 17 runtime
#   scripts/base-image.sh toolbox      a small Debian with what tests ask a network with
set -euo pipefail
source "$(dirname "$0")/environment.sh"
source scripts/image-builder.sh

readonly SUITE=bookworm

case ${1:-} in
debian) options=(--variant=essential --include=ca-certificates,curl,iptables) ;;
distroless) options=(--variant=extract --include=base-files,ca-certificates,libc6,netbase,tzdata) ;;
java) options=(--variant=essential --include=ca-certificates,openjdk-17-jre-headless) ;;
toolbox)
    options=(--variant=essential
        --include=ca-certificates,curl,iproute2,iputils-ping,netcat-openbsd,openssl,procps,socat,tcpdump)
    ;;
*) fail "base image ${1:-}: expected debian, distroless, java or toolbox" ;;
esac
readonly NAME=$1

hash=$(cat scripts/base-image.sh <(echo "$NAME ${options[*]} $SUITE") | sha256sum | cut -c 1-16)
image=localhost/ringmail/base-$NAME:$hash
folder=$CACHE/base-images
mkdir -p "$folder"
exec 9>"$folder/$NAME.lock"
flock 9

builder_has() {
    if [[ $BUILDER == buildah ]]; then
        run_buildah inspect --type image "$1" &>/dev/null
    else
        docker image inspect "$1" &>/dev/null
    fi
}

# A root without a shell has no account of its own, and roots of CAs that no script has joined into one file.
finish_distroless() {
    mkdir -p "$1/etc/ssl/certs"
    cat "$1"/usr/share/ca-certificates/mozilla/*.crt >"$1/etc/ssl/certs/ca-certificates.crt"
    printf 'root:x:0:0:root:/root:/sbin/nologin\nnonroot:x:65532:65532:nonroot:/home/nonroot:/sbin/nologin\n' >"$1/etc/passwd"
    printf 'root:x:0:\nnonroot:x:65532:\n' >"$1/etc/group"
    rm -rf "$1/usr/share/doc" "$1/usr/share/man" "$1/usr/share/locale"
}
export -f finish_distroless

make_base() {
    local work hooks=()
    work=$(mktemp -d)
    if [[ $NAME == distroless ]]; then
        hooks=(--customize-hook='bash -c '\''finish_distroless "$1"'\'' bash "$1"')
    fi
    persistently as_root mmdebstrap --quiet --dpkgopt=force-unsafe-io "${options[@]}" "${hooks[@]}" \
        --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/man/*/*' \
        --dpkgopt='path-exclude=/usr/share/locale/*' "$SUITE" "$work/root.tar"
    printf 'FROM scratch\nADD root.tar /\nENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\n' >"$work/Dockerfile"
    build_image "$image" "$work/Dockerfile" "$work"
    as_root rm -rf "$work"
}

if ! builder_has "$image"; then
    echo "making $image of Debian's packages" >&2
    make_base >&2
fi
echo "$image"
