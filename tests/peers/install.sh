#!/bin/sh
# Installs the programs that the tests in this directory use, where they are missing. Debian; needs root.
set -eu
missing=
want() { PATH="$PATH:/usr/sbin:/sbin" command -v "$1" >/dev/null 2>&1 || missing="$missing $2"; }
want nginx nginx-light
want curl curl
want aria2c aria2
want wget wget
want casync casync
want strace strace
want mount mount
want losetup mount
want mkfs.ext4 e2fsprogs
want mkfs.btrfs btrfs-progs
want mkfs.xfs xfsprogs
want xfs_io xfsprogs
want mkfs.btrfs btrfs-progs
want filefrag e2fsprogs
want sshfs sshfs
want socat socat
want faketime faketime
want softhsm2-util softhsm2
want pkcs11-tool opensc
want ssh-keygen openssh-client
want openssl openssl
want tinyproxy tinyproxy
want squid squid
want systemd-analyze systemd
want promtool prometheus
want ip iproute2
want tc iproute2
want nsenter util-linux
want busybox busybox
want bsdtar libarchive-tools
want pigz pigz
want makeself makeself
want bzip2 bzip2
want xz xz-utils
want zstd zstd
want mksh mksh
want yash yash
want chromium chromium
[ -x /usr/lib/openssh/sftp-server ] || missing="$missing openssh-sftp-server"
ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 || missing="$missing postgresql"
rucio() { "$(dirname "$0")/rucio/install.sh" >/dev/null; }
[ -n "$missing" ] || { rucio; exit 0; }
if [ "$(id -u)" -ne 0 ]; then
    echo "install.sh: missing:$missing; install them with your package manager, or run this as root" >&2
    exit 1
fi
export DEBIAN_FRONTEND=noninteractive
echo "install.sh: installing$missing" >&2
# The servers are only ever started by the tests, on loopback: keep the packages from starting their own.
if [ ! -e /usr/sbin/policy-rc.d ]; then
    trap 'rm -f /usr/sbin/policy-rc.d' EXIT
    printf '#!/bin/sh\nexit 101\n' > /usr/sbin/policy-rc.d
    chmod 0755 /usr/sbin/policy-rc.d
fi
apt-get -qq update
# shellcheck disable=SC2086
apt-get -qq install -y --no-install-recommends $missing >/dev/null
rucio
