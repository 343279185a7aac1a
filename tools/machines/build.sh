#!/usr/bin/env bash
# The tests of machines log in to real ones: a Debian with sshd, sudo, apt and an NFS server of
# its own. This makes the file system that all of them start from, once for each change of the
# files beside this script.
#
#   tools/machines/build.sh      into $OPSD_CACHE/machines/DIGEST
#
# It does nothing (in a moment) when it is there. Else it takes about a minute. Needs root, and
# a Debian whose apt sources name a mirror: the system's own sources are only read.
set -euo pipefail
cd "$(dirname "$0")"

CACHE=${OPSD_CACHE:?the folder for downloads; the Makefile sets it}
SUITE=bookworm
TARGET=$CACHE/machines/$(cat build.sh repository.sh pending.sh | sha256sum | cut -c1-16)
PACKAGES=(
    apt-utils busybox ca-certificates cron gpg gpg-agent iproute2 iputils-ping kmod libnfs-utils
    needrestart nfs-ganesha nfs-ganesha-vfs nftables openssh-server procps python3-minimal
    rsync smartmontools sudo systemd unattended-upgrades
)
NOT_UNPACKED=('/usr/share/doc/*' '/usr/share/man/*' '/usr/share/locale/*' '/usr/share/info/*')

say() { printf 'machines: %s\n' "$*" >&2; }
die() {
    say "$*"
    exit 1
}

mirror_of() { # The first mirror that the machine's sources name for a label.
    apt-get indextargets --format '$(ORIGIN) $(LABEL) $(COMPONENT) $(REPO_URI)' \
        'Created-By: Packages' |
        awk -v label="$1" '$1 == "Debian" && $2 == label && $3 == "main" && !seen++ { print $4 }'
}

[[ ! -e $TARGET ]] || exit 0
[[ $(id -u) == 0 ]] || die "only root can make a file system for machines"
mirror=$(mirror_of Debian)
security=$(mirror_of Debian-Security)
if [[ -z $mirror || -z $security ]]; then # package lists that were never fetched name none
    say "refreshing the package lists (apt-get update)"
    apt-get -qq update >&2
    mirror=$(mirror_of Debian)
    security=$(mirror_of Debian-Security)
fi
[[ -n $mirror && -n $security ]] ||
    die "the apt sources name no mirror of Debian and of its security updates; see apt-get indextargets"

say "making a Debian $SUITE for the machines of the tests in $TARGET: about a minute, once"
mkdir -p "$CACHE/machines"
work=$(mktemp -d "$CACHE/machines/making.XXXXXX")
trap 'rm -rf --one-file-system "$work"' EXIT
mmdebstrap --quiet --mode=root --variant=minbase \
    --include="$(IFS=, && echo "${PACKAGES[*]}")" \
    "${NOT_UNPACKED[@]/#/--dpkgopt=path-exclude=}" \
    --customize-hook='rm -f "$1"/etc/ssh/ssh_host_*' \
    --customize-hook='cp repository.sh pending.sh "$1/root/"' \
    --customize-hook='chroot "$1" bash /root/repository.sh' \
    --customize-hook='chroot "$1" bash /root/pending.sh' \
    --customize-hook='rm "$1"/root/*.sh' \
    --skip=cleanup/apt/lists \
    "$SUITE" "$work/root" \
    "deb $mirror $SUITE main" "deb $security $SUITE-security main" >&2
chmod 755 "$work/root"
mv "$work/root" "$TARGET"
