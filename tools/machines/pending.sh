# Runs in the file system that is being made, after repository.sh: installs the older versions of
# what the archive holds, so that updates are pending when a machine starts.
set -euo pipefail
export LC_ALL=C DEBIAN_FRONTEND=noninteractive NEEDRESTART_SUSPEND=1

apt-get -qq -y -o Dpkg::Use-Pty=0 install --no-install-recommends \
    opsd-fx-{app=2.0,lib=1.0,absorbed=1.0,held=1.0,kept=1.0,stuck=1.0,phased=1.0} \
    linux-image-opsd=6.1.98-1 linux-image-6.1.0-98-opsd \
    kube{adm,let,ctl}=1.36.1-1.1 >/dev/null
apt-mark hold opsd-fx-held kubeadm kubelet kubectl >/dev/null
rm -f /run/reboot-required /run/reboot-required.pkgs /var/cache/apt/archives/*.deb
useradd --create-home --shell /bin/bash opsd
