#!/bin/sh
# Builds the Debian packages: deb.sh [FOLDER], which is where they come, target/deb if it is absent. The work is done in BUILD,
# target/deb/build if it is not set. DEB_VERSION gives them another version than packaging/debian/changelog has.
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
mkdir -p "${1:-$root/target/deb}" "${BUILD:-$root/target/deb/build}"
packages=$(cd "${1:-$root/target/deb}" && pwd)
build=$(cd "${BUILD:-$root/target/deb/build}" && pwd)

# A copy of the tree: debhelper works in it.
rm -rf "$build/source" "$build"/*.deb
mkdir "$build/source"
tar -C "$root" --create --exclude-vcs --exclude=./target --exclude=./fuzz/target --exclude=./debian --exclude=__pycache__ \
    --exclude=.venv --exclude=.venv-fixtures . | tar -C "$build/source" --extract
cp -r "$root/packaging/debian" "$build/source/debian"
if [ -n "${DEB_VERSION:-}" ]; then
    sed -i "1s/(.*)/($DEB_VERSION)/" "$build/source/debian/changelog"
fi

# What programs say of themselves: the commit, and the time of it.
if commit=$(git -C "$root" rev-parse --short=12 HEAD 2>/dev/null); then
    [ -z "$(git -C "$root" status --porcelain)" ] || commit=$commit+changes
    export BIRTHMARK_COMMIT="${BIRTHMARK_COMMIT:-$commit}"
    SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git -C "$root" log -1 --format=%ct)}
    export SOURCE_DATE_EPOCH
fi
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-$build/cargo}"
cd "$build/source"
dpkg-buildpackage --build=binary --no-sign
mv "$build"/*.deb "$packages/"
