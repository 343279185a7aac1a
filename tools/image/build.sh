#!/usr/bin/env bash
# The image of the tests: deploy/Containerfile as it is, on a base that is made here instead of
# pulled, so that no container registry has to be reached.
#
#   tools/image/build.sh      into $OPSD_CACHE/image/store, as localhost/opsd:test
#
# Needs root, buildah and mmdebstrap. The base takes some minutes once; the image a minute, and a
# moment when nothing changed. PostgreSQL's own packages are not fetched here: the image of the
# tests has the one pg_dump of its Debian.
set -euo pipefail
cd "$(dirname "$0")/../.."

CACHE=${OPSD_CACHE:?the folder for downloads; the Makefile sets it}/image
BASE=localhost/python:3.13-slim-trixie
IMAGE=localhost/opsd:test
PACKAGES=python3,python3-venv,python3-pip,ca-certificates,passwd
BUILDAH=(buildah --root "$CACHE/store" --runroot "$CACHE/run" --storage-driver overlay)

say() { printf 'image: %s\n' "$*" >&2; }
die() {
    say "$*"
    exit 1
}

make_base() {
    local mirror container
    mirror=$(apt-get indextargets --format '$(ORIGIN) $(LABEL) $(COMPONENT) $(REPO_URI)' \
        'Created-By: Packages' | awk '$1 == "Debian" && $2 == "Debian" && $3 == "main" && !seen++ { print $4 }')
    [[ -n $mirror ]] || die "the apt sources name no Debian mirror; try apt-get update"
    say "making a base from Debian 13, once: some minutes"
    rm -f "$CACHE/base.tar"
    mmdebstrap --quiet --mode=root --variant=minbase --include="$PACKAGES" \
        --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/man/*' \
        --dpkgopt='path-exclude=/usr/share/locale/*' \
        trixie "$CACHE/base.tar" "deb $mirror trixie main" >&2
    container=$("${BUILDAH[@]}" from scratch)
    "${BUILDAH[@]}" add -q "$container" "$CACHE/base.tar" / >/dev/null
    "${BUILDAH[@]}" commit -q --rm "$container" "$BASE" >/dev/null
    rm -f "$CACHE/base.tar"
}

[[ $(id -u) == 0 ]] || die "only root can build it here"
mkdir -p "$CACHE"
exec 9>"$CACHE/.lock"
flock 9
"${BUILDAH[@]}" inspect --type image "$BASE" >/dev/null 2>&1 || make_base
say "building $IMAGE"
"${BUILDAH[@]}" bud --quiet --layers --isolation chroot --pull-never --network host \
    -v /etc/ssl/certs:/etc/ssl/certs:ro -v /etc/hosts:/etc/hosts:ro \
    --build-arg BASE="$BASE" --build-arg PG_SOURCE=debian \
    -f deploy/Containerfile -t "$IMAGE" . >&2
