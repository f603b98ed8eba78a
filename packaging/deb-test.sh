#!/bin/bash
# Tries the packages in FOLDER (target/deb) in a Debian of their own, as root: installed, started as docs/install.md has it,
# upgraded from the version before, removed, installed again, purged: deb-test.sh [FOLDER]. The version before is the same
# content under a lower number.
#
# systemd cannot be process 1 there: units are read by `systemd-analyze verify`, and a stand-in of `systemctl` starts what
# they say, as the user they say.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
packages=$(cd "${1:-$root/target/deb}" && pwd)
cd "$root"
mkdir -p target/deb
debian=target/deb/bookworm.tar
[ "$(id -u)" = 0 ] || { echo "deb-test: a chroot needs root" >&2; exit 1; }
ls "$packages"/birthmark_*.deb >/dev/null

[ -e "$debian" ] || mmdebstrap --quiet --variant=minbase --include=adduser,ca-certificates,openssl,procps,softhsm2,systemd bookworm "$debian"
chroot=$(mktemp -d)
trap 'rm -rf --one-file-system "$chroot"' EXIT
tar -C "$chroot" -xf "$debian"
echo "127.0.0.1 localhost" >"$chroot/etc/hosts"
mkdir -p "$chroot/test/now" "$chroot/test/before"
cp packaging/deb-test-inside.sh "$chroot/test/"
for package in "$packages"/*.deb; do
    case $package in *-dbgsym_*) continue ;; esac
    cp "$package" "$chroot/test/now/"
    dpkg-deb --raw-extract "$package" "$chroot/test/unpacked"
    sed -i -E '/^Version:/s/$/~before/; s/\(= ([^)]*)\)/(= \1~before)/' "$chroot/test/unpacked/DEBIAN/control"
    dpkg-deb -Zgzip -z1 --build "$chroot/test/unpacked" "$chroot/test/before/$(basename "$package")" >/dev/null
    rm -r "$chroot/test/unpacked"
done
# The page's commands in its order, but for those that it says are not run.
awk '/^<!-- not run/ { skip = 1 } /^```$/ { run = 0; skip = 0 } run { print } /^```sh$/ { run = !skip }' docs/install.md >"$chroot/test/page.sh"
# shellcheck disable=SC2016
unshare --mount --pid --net --fork --kill-child sh -c '
    ip link set lo up
    mount -t proc proc "$1/proc" && mount --rbind /dev "$1/dev" && mount -t tmpfs tmpfs "$1/tmp"
    exec chroot "$1" /bin/bash /test/deb-test-inside.sh' sh "$chroot"
