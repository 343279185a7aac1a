# Runs in the file system that is being made. What apt says of pending updates would change every
# day with the real archive. So the archive is replaced by one on the machine's own disk: it lists
# what is installed, from the real package lists, and beside that packages made here.
#
# /srv/apt/debian: suites bookworm and bookworm-security; /srv/apt/kubernetes-v1.36 and -v1.37.
# All are signed by one key, which never expires.
set -euo pipefail
export LC_ALL=C DEBIAN_FRONTEND=noninteractive GNUPGHOME=/root/.gnupg-archive
ARCH=$(dpkg --print-architecture)
KEYRING=/etc/apt/keyrings/opsd-fx.gpg

# One package: name, version, folder; further lines of its control file; its postinst, from stdin.
package() {
    local box=/tmp/box extra=${4:-}
    rm -rf "$box"
    mkdir -p "$box/DEBIAN" "$3"
    {
        printf 'Package: %s\nVersion: %s\nArchitecture: all\n' "$1" "$2"
        printf 'Maintainer: Nobody <nobody@localhost>\nSection: misc\nPriority: optional\n'
        [[ -z $extra ]] || printf '%s\n' "$extra"
        printf 'Description: made for the tests\n'
    } >"$box/DEBIAN/control"
    [[ -z ${5:-} ]] || { printf '%s' "$5" >"$box/DEBIAN/postinst" && chmod 755 "$box/DEBIAN/postinst"; }
    [[ ! -d /tmp/files ]] || cp -r /tmp/files/. "$box/"
    dpkg-deb --root-owner-group --build "$box" "$3/$1_${2//:/%3a}_all.deb" >/dev/null
}

kernel() { # A kernel that tells the hooks of the others that it is there, as the real ones do.
    mkdir -p "/tmp/files/boot" "/tmp/files/lib/modules/$1"
    echo "not a kernel" >"/tmp/files/boot/vmlinuz-$1"
    package "linux-image-$1" "$2" "$3" "" "#!/bin/sh
set -e
[ \"\$1\" = configure ] || exit 0
run-parts --report --exit-on-error --arg=$1 --arg=/boot/vmlinuz-$1 /etc/kernel/postinst.d
"
    rm -rf /tmp/files
}

kubernetes() { # The three programs of one release; each prints its version.
    local program
    for program in kubeadm kubelet kubectl; do
        mkdir -p /tmp/files/usr/bin
        # shellcheck disable=SC2016 # expanded when it is run
        printf '#!/bin/sh\ncase "$*" in\n*--version*) echo "Kubernetes v%s" ;;\n*) echo "v%s" ;;\nesac\n' \
            "$1" "$1" >"/tmp/files/usr/bin/$program"
        chmod 755 "/tmp/files/usr/bin/$program"
        package "$program" "$1-1.1" "$2"
        rm -rf /tmp/files
    done
}

# pool, folder of the index, folder of the archive
index() {
    local pool=$1 index=$2 root=$3
    shift 3
    mkdir -p "$index"
    (cd "$root" && apt-ftparchive packages "$pool") >>"$index/Packages"
}

release() { # folder of the suite, then fields
    local suite=$1 field
    local -a options=()
    shift
    for field in "$@"; do options+=(-o "APT::FTPArchive::Release::$field"); done
    (cd "$suite" && apt-ftparchive "${options[@]}" release . >/tmp/Release && mv /tmp/Release Release)
    gpg --batch --yes --quiet --clearsign -o "$suite/InRelease" "$suite/Release"
    rm "$suite/Release"
}

mkdir -m 700 "$GNUPGHOME"
gpg --batch --quiet --passphrase '' --quick-generate-key 'Archive of the tests' ed25519 sign never
mkdir -p /etc/apt/keyrings
gpg --batch --quiet --export >"$KEYRING"

DEBIAN=/srv/apt/debian
for suite in bookworm bookworm-security; do mkdir -p "$DEBIAN/dists/$suite/main/binary-$ARCH"; done
# shellcheck disable=SC2016 # dpkg-query's own
dpkg-query -W -f '${Package}:${Architecture}=${Version}\n' | sed 's/:all=/=/' |
    xargs apt-cache show --no-all-versions | sed -n '/^Status:/d; p' \
    >"$DEBIAN/dists/bookworm/main/binary-$ARCH/Packages"

cd "$DEBIAN"
package opsd-fx-app 2.0 pool/main
package opsd-fx-app 2.1 pool/main
package opsd-fx-lib 1.0 pool/main
package opsd-fx-lib 1.1 pool/security
# A security update that the next point release took over: the candidate comes from main.
package opsd-fx-absorbed 1.0 pool/main
package opsd-fx-absorbed 1.1 pool/security
package opsd-fx-absorbed 1.2 pool/main
package opsd-fx-held 1.0 pool/main
package opsd-fx-held 1.1 pool/main
package opsd-fx-kept 1.0 pool/main
package opsd-fx-kept 1.1 pool/main "Depends: opsd-fx-new"
package opsd-fx-new 1.0 pool/main
package opsd-fx-stuck 1.0 pool/main
package opsd-fx-stuck 1.1 pool/main "Depends: opsd-fx-nowhere"
package opsd-fx-phased 1.0 pool/main
package opsd-fx-phased 1.1 pool/main "Phased-Update-Percentage: 0"
kernel 6.1.0-98-opsd 6.1.98-1 pool/main
kernel 6.1.0-99-opsd 6.1.99-1 pool/security
package linux-image-opsd 6.1.98-1 pool/main "Depends: linux-image-6.1.0-98-opsd"
package linux-image-opsd 6.1.99-1 pool/security "Depends: linux-image-6.1.0-99-opsd"
index pool/main "dists/bookworm/main/binary-$ARCH" .
index pool/security "dists/bookworm-security/main/binary-$ARCH" .
release dists/bookworm Origin=Debian Label=Debian Suite=oldstable Version=12.99 \
    Codename=bookworm Components=main "Architectures=$ARCH all"
release dists/bookworm-security Origin=Debian Label=Debian-Security Suite=oldstable-security \
    Version=12 Codename=bookworm-security Components=main "Architectures=$ARCH all"

for minor in 1.36 1.37; do
    mkdir -p /srv/apt/kubernetes-v$minor && cd /srv/apt/kubernetes-v$minor
    for patch in 1 2 4; do kubernetes "$minor.$patch" "pool"; done
    # A flat repository, as the real one.
    apt-ftparchive packages pool >Packages
    release . "Origin=obs://build.opensuse.org/isv:kubernetes:core:stable:v$minor/deb" \
        "Label=isv:kubernetes:core:stable:v$minor" "Architectures=$ARCH all"
done
rm -rf "$GNUPGHOME" /tmp/box /tmp/Release

rm -f /etc/apt/sources.list /etc/apt/sources.list.d/*
cat >/etc/apt/sources.list <<-LIST
	deb [signed-by=$KEYRING] file:/srv/apt/debian bookworm main
	deb [signed-by=$KEYRING] file:/srv/apt/debian bookworm-security main
LIST
echo "deb [signed-by=$KEYRING] file:/srv/apt/kubernetes-v1.36 ./" >/etc/apt/sources.list.d/kubernetes.list
rm -rf /var/lib/apt/lists/* /var/cache/apt/*.bin /var/cache/apt/archives/*.deb
apt-get -qq -o APT::Sandbox::User=root update
