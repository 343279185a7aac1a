#!/usr/bin/env bash
# The replace lines of k8s.io/kubernetes point into its own source tree and mean nothing to who
# depends on it: each staging module must be replaced by its published twin. This writes the
# go.mod and go.sum of one release, with the list read from that release itself.
#
#   tools/control-plane/pin.sh 1.37.2    writes tools/control-plane/1.37/
#   tools/control-plane/pin.sh etcd 3.7.3       writes tools/control-plane/etcd/
#   tools/control-plane/pin.sh etcdutl 3.6.16   writes tools/control-plane/3.6/
set -euo pipefail
cd "$(dirname "$0")"

COMMANDS=(kube-apiserver kube-controller-manager kube-scheduler kubeadm kubectl)
export GOTOOLCHAIN=local GOWORK=off GOFLAGS=-modcacherw

start_module() { # Leaves us in its empty folder.
    mkdir -p "$1"
    cd "$1"
    rm -f go.mod go.sum
    go mod init "opsd.test/$2"
}

pin_kubernetes() {
    local version=$1 upstream module
    start_module "${version%.*}" kube
    upstream=$(go mod download -json "k8s.io/kubernetes@v$version" | sed -n 's/.*"GoMod": "\(.*\)".*/\1/p')
    go mod edit -go="$(awk '$1 == "go" { print $2; exit }' "$upstream")" -require="k8s.io/kubernetes@v$version" \
        "${COMMANDS[@]/#/-tool=k8s.io/kubernetes/cmd/}"
    for module in $(awk '$2 == "=>" && $3 ~ /^\.\/staging\// { print $1 }' "$upstream"); do
        go mod edit -replace="$module=$module@v0.${version#1.}"
    done
    go mod tidy
}

pin_etcd() {
    start_module etcd etcd
    go mod edit -require="go.etcd.io/etcd/server/v3@v$1" -tool=go.etcd.io/etcd/server/v3
    go mod tidy
}

pin_etcd_tools() {
    local version=$1
    start_module "${version%.*}" etcd
    go mod edit -go=1.26.0 -require="go.etcd.io/etcd/server/v3@v$version" \
        -require="go.etcd.io/etcd/etcdutl/v3@v$version" \
        -tool=go.etcd.io/etcd/server/v3 -tool=go.etcd.io/etcd/etcdutl/v3
    go mod tidy
}

case ${1:-} in
    etcdutl) pin_etcd_tools "${2:?usage: tools/control-plane/pin.sh etcdutl 3.6.16}" ;;
    etcd) pin_etcd "${2:?usage: tools/control-plane/pin.sh etcd 3.7.3}" ;;
    1.*.*) pin_kubernetes "$1" ;;
    *) echo "usage: tools/control-plane/pin.sh 1.37.2 | etcd 3.7.3 | etcdutl 3.6.16" >&2 && exit 2 ;;
esac
