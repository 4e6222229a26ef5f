#!/bin/sh
# Builds the image of curvebench: image.sh cpu|cuda NAME. What the Makefile hands over in the environment:
#   ENGINE        docker, podman or buildah; empty: the first of them that works
#   BASE          the base image, e.g. with a digest; empty: what the Dockerfile says
#   IMAGE_FLAGS   more words for the engine's build command
set -u
kind=$1 name=$2

fail() { echo "image: $1" >&2; exit 2; }
# A docker client without a daemon is no engine.
works() { case $1 in docker) docker info >/dev/null 2>&1 ;; *) command -v "$1" >/dev/null 2>&1 ;; esac; }

case $kind in
cpu) file=docker/Dockerfile ;;
cuda) file=docker/Dockerfile.cuda ;;
*) fail "TORCH=$kind is no kind of image; it is cpu or cuda" ;;
esac
engine=${ENGINE:-}
case $engine in
'')
    for candidate in docker podman buildah; do
        if works "$candidate"; then engine=$candidate && break; fi
    done
    [ -n "$engine" ] || fail "no engine works here: docker (client and daemon), podman or buildah is needed; install one of them, e.g. apt install buildah"
    ;;
docker | podman | buildah) works "$engine" || fail "ENGINE=$engine is not installed, or its daemon does not answer" ;;
*) fail "ENGINE=$engine is not supported; it is docker, podman or buildah" ;;
esac
echo "image: $engine builds $name:$kind from $file"
# IMAGE_FLAGS is split into words on purpose.
# shellcheck disable=SC2086
exec "$engine" build ${BASE:+--build-arg "BASE=$BASE"} ${IMAGE_FLAGS:-} --tag "$name:$kind" --file "$file" .
