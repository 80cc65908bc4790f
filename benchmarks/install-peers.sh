#!/bin/sh
# Installs the programs that the benchmarks measure pacball against, where they are missing. Needs root.
set -eu
missing=
want() { command -v "$1" >/dev/null 2>&1 || [ -x "/usr/sbin/$1" ] || missing="$missing $2"; }
want casync casync
want borg borgbackup
want restic restic
want nginx nginx
want rsync rsync
want zstd zstd
want curl curl
want tar tar
want b3sum b3sum
want mkfs.btrfs btrfs-progs
want mkfs.ext4 e2fsprogs
want mount mount
[ -n "$missing" ] || exit 0
if [ "$(id -u)" -ne 0 ]; then
    echo "install-peers: missing:$missing; install them with your package manager, or run this as root" >&2
    exit 1
fi
export DEBIAN_FRONTEND=noninteractive
echo "install-peers: installing$missing" >&2
# The servers are only ever started by the benchmarks, on loopback: keep the packages from starting their own.
if [ ! -e /usr/sbin/policy-rc.d ]; then
    trap 'rm -f /usr/sbin/policy-rc.d' EXIT
    printf '#!/bin/sh\nexit 101\n' > /usr/sbin/policy-rc.d
    chmod 0755 /usr/sbin/policy-rc.d
fi
apt-get -qq update
# shellcheck disable=SC2086
apt-get -qq install -y --no-install-recommends $missing >/dev/null
