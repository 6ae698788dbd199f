#!/usr/bin/env bash
# Builds images and writes each as an archive that containerd, kind and Docker load. What has not changed is not built again.
#   scripts/images.sh [option...] [image...]
# Images: proxy proxy-distroless init ca control, all of them without an argument; for the tests: ignite-test toolbox.
#   --tag TAG                the version in the images' names (default: dev)
#   --binaries FOLDER        where the programs are (default: dist/<architecture>, else target/release)
#   --out FOLDER             where the archives go (default: target/images)
#   --local-bases            builds on bases made of Debian's packages, for where no registry can be reached
#   --base IMAGE             builds on this Debian instead of docker.io/library/debian:12-slim
#   --distroless-base IMAGE  builds on this instead of gcr.io/distroless/base-nossl-debian12
#   --java-base IMAGE        builds on this instead of docker.io/library/eclipse-temurin:17-jre
# Prints the path of each archive. Beside the archive of a program is its bill of materials, <image>.cdx.json.
set -euo pipefail
source "$(dirname "$0")/environment.sh"
source scripts/image-builder.sh

readonly PROGRAMS=(proxy proxy-distroless init ca control)
# The release of Ignite that the tests run on Kubernetes.
readonly IGNITE=${RINGMAIL_IGNITE_VERSION:-2.16.0}

case $(uname -m) in
x86_64) ARCH=amd64 ;;
aarch64) ARCH=arm64 ;;
*) fail "architecture $(uname -m): expected x86_64 or aarch64" ;;
esac

tag=dev
binaries=
out=target/images
local_bases=0
base=docker.io/library/debian:12-slim
distroless_base=gcr.io/distroless/base-nossl-debian12
java_base=docker.io/library/eclipse-temurin:17-jre
images=()
while (($#)); do
    case $1 in
    --tag | --binaries | --out | --base | --distroless-base | --java-base)
        (($# > 1)) || fail "$1 needs a value"
        name=${1#--}
        declare "${name//-/_}=$2"
        shift
        ;;
    --local-bases) local_bases=1 ;;
    -*) fail "unknown option $1" ;;
    *) images+=("$1") ;;
    esac
    shift
done
if ((${#images[@]} == 0)); then
    images=("${PROGRAMS[@]}")
fi
if [[ -z $binaries ]]; then
    binaries=dist/$ARCH
    [[ -d $binaries ]] || binaries=target/release
fi
mkdir -p "$out"
# Two runs at once would write the same archives.
exec 8>"$out/lock"
flock 8

# base_of KIND DEFAULT: the image to build on.
base_of() {
    if ((local_bases)); then
        scripts/base-image.sh "$1"
    else
        echo "$2"
    fi
}

# Puts a program into the context, without what only a debugger reads.
add_program() {
    local program=$binaries/$1
    [[ -x $program ]] || fail "$program is not there: build it, or name its folder with --binaries"
    mkdir -p "$context/dist/$ARCH"
    strip -o "$context/dist/$ARCH/$1" "$program"
}

# The folder of an installation, as the official archive has it: spring and indexing on the class path, the rest optional.
add_ignite() {
    scripts/ignite-jars.sh "$IGNITE" "$context/ignite"
    cp images/ignite-test/run.sh images/ignite-test/ignite-load "$context"
}

build_one() {
    local image=$1 name=docker.io/ringmail/$1:$tag file=images/$1/Dockerfile arguments=() context archive hash
    context=$(mktemp -d)
    case $image in
    proxy)
        add_program ringmail-proxy
        arguments=(--target default)
        ;;
    proxy-distroless)
        name=docker.io/ringmail/proxy:$tag-distroless
        file=images/proxy/Dockerfile
        add_program ringmail-proxy
        arguments=(--target distroless)
        ;;
    init | ca | control) add_program "ringmail-$image" ;;
    ignite-test) add_ignite ;;
    toolbox) cp images/toolbox/* "$context" ;;
    *) fail "image $image: expected one of ${PROGRAMS[*]} ignite-test toolbox" ;;
    esac
    # Each Dockerfile takes those of these that it knows.
    case $image in
    proxy | init) arguments+=(--build-arg "BASE=$(base_of debian "$base")") ;;
    proxy-distroless | ca | control)
        arguments+=(--build-arg "DISTROLESS_BASE=$(base_of distroless "$distroless_base")")
        ;;
    ignite-test) arguments+=(--build-arg "JAVA_BASE=$(base_of java "$java_base")") ;;
    toolbox) arguments+=(--build-arg "BASE=$(base_of toolbox "$base")") ;;
    esac
    if [[ " ${PROGRAMS[*]} " == *" $image "* ]]; then
        arguments+=(--build-arg "TARGETARCH=$ARCH" --build-arg "VERSION=$tag"
            --build-arg "REVISION=$(git rev-parse HEAD 2>/dev/null || echo unknown)")
    fi
    archive=$out/$image.tar
    hash=$(content_of "$context" "$file" "$name ${arguments[*]}")
    if [[ ! -e $archive || $(cat "$archive.content" 2>/dev/null) != "$hash" ]]; then
        echo "building $name" >&2
        rm -f "$archive.content"
        build_image "$name" "$file" "$context" "${arguments[@]}"
        save_image "$name" "$archive"
        echo "$hash" >"$archive.content"
    fi
    case $image in
    proxy | init | ca | control) scripts/sbom.sh "ringmail-$image" >"$out/$image.cdx.json" ;;
    esac
    rm -rf "$context"
    realpath "$archive"
}

# One line for all that an image is made of; the revision, which is a label, is no reason to build it again.
content_of() {
    {
        (cd "$1" && find . -type f -print0 | sort -z | xargs -0 -r sha256sum)
        cat "$2"
        sed 's/REVISION=[^ ]*//' <<<"$3"
    } | sha256sum | cut -d ' ' -f 1
}

for image in "${images[@]}"; do
    build_one "$image"
done
