#!/bin/bash
# Builds docker/Dockerfile for real and runs the quick study in it: its table must be the host's, times and memory aside.
#
#   tools/image_check.sh [words for `bench`]      e.g. tools/image_check.sh --seeds 3; without words: two tasks, one seed
#
# Needs root, buildah and debootstrap, and asks no image registry: Debian's own Python 3.11, unpacked by debootstrap,
# stands in for the base image under the name in FROM. Exits 77 with a sentence where it cannot run. Everything that it
# makes lies below one folder of $TMPDIR (about 10 GB free are needed), which it removes.
#
#   PYTHON=.venv/bin/python   the host's side     MIRROR=http://...   Debian's     KEEP=1   leave the folder
set -euo pipefail
cd "$(dirname "$0")/.."

skip() { echo "image-check: not run: $1"; exit 77; }
for tool in buildah debootstrap; do
    command -v "$tool" >/dev/null || skip "$tool is not installed (apt install buildah debootstrap)"
done
[ "$(id -u)" = 0 ] || skip "debootstrap and buildah's chroot isolation need root"
python=$(realpath -s "${PYTHON:-.venv/bin/python}")
"$python" -c 'import curvebench, torch, jax' 2>/dev/null || skip "$python cannot run the host's side; make install first"

name=docker.io/library/python:3.11-slim-bookworm
study=(bench quick --task least-squares --task logistic-breast-cancer --seeds 1)
[ $# = 0 ] || study=(bench quick "$@")

work=$(mktemp -d "${TMPDIR:-/var/tmp}/curvebench-image.XXXXXX")
[ -n "${KEEP:-}" ] || trap 'rm -rf "$work"' EXIT
export BUILDAH_ISOLATION=chroot STORAGE_DRIVER=vfs CONTAINERS_STORAGE_CONF=$work/storage.conf
# A store of its own: the stand-in never appears among the images of this machine.
printf '[storage]\ndriver = "vfs"\ngraphroot = "%s/store"\nrunroot = "%s/run"\n' "$work" "$work" >"$work/storage.conf"

echo "image-check: a base with debootstrap, as $name"
debootstrap --variant=minbase --include=python3,python3-venv,ca-certificates bookworm \
    "$work/base" "${MIRROR:-http://deb.debian.org/debian}" >"$work/debootstrap.log" 2>&1 || {
    tail -n 5 "$work/debootstrap.log" >&2
    skip "debootstrap got no Debian from ${MIRROR:-http://deb.debian.org/debian}"
}
rm -rf "$work"/base/var/cache/apt/archives/*.deb "$work"/base/var/lib/apt/lists/*
container=$(buildah from scratch)
buildah add --quiet "$container" "$work/base" /
buildah config --env PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin "$container"
buildah commit --quiet "$container" "$name" >/dev/null
buildah rm "$container" >/dev/null
rm -rf "$work/base"

# Where pip has a folder of wheels (find-links), the build sees it and takes torch from there: no CUDA build by accident.
flags=(--pull-never --layers=false)
links=${PIP_FIND_LINKS:-$("$python" -m pip config get global.find-links 2>/dev/null || true)}
if [ -d "$links" ]; then
    flags+=(--volume "$links:$links:ro" --build-arg TORCH_INDEX= --build-arg "PIP_FIND_LINKS=$links")
fi
certificates=/etc/ssl/certs/ca-certificates.crt
[ ! -f "$certificates" ] || flags+=(--volume "$certificates:$certificates:ro")
make --no-print-directory image ENGINE=buildah IMAGE_FLAGS="${flags[*]}" >"$work/build.log" 2>&1 || {
    tail -n 30 "$work/build.log" >&2
    echo "image-check: the build failed" >&2
    exit 1
}
buildah images --format '{{.Name}}:{{.Tag}} {{.Size}}'

echo "image-check: curvebench ${study[*]}"
container=$(buildah from --pull-never localhost/curvebench:cpu)
entrypoint=$(buildah inspect --format '{{index .OCIv1.Config.Entrypoint 0}}' "$container")
inside() { buildah run "$container" -- "$@"; }
[ "$(inside id -u)" = 1000 ] || { echo "image-check: the image runs as $(inside id -un)" >&2; exit 1; }
inside "$entrypoint" "${study[@]}" --json >"$work/image.json"
mkdir "$work/host"
root=$PWD
(cd "$work/host" && PYTHONPATH=$root/src "$python" -m curvebench "${study[@]}" --json >"$work/host.json")
"$python" tools/image_compare.py "$work/host.json" "$work/image.json"
