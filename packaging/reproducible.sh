#!/bin/sh
# Builds the packages of target/deb once more, in a folder of another name and without anything that was built before, and
# compares them.
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
cd "$root"
ls target/deb/*.deb >/dev/null 2>&1 || packaging/deb.sh
build=$(mktemp -d)
trap 'rm -rf "$build"' EXIT
BUILD=$build/elsewhere CARGO_TARGET_DIR=$build/programs packaging/deb.sh "$build/packages"
differ=0
for package in target/deb/*.deb; do
    name=$(basename "$package")
    if cmp "$package" "$build/packages/$name"; then
        echo "the same: $name, SHA-256 $(sha256sum <"$package" | cut -d ' ' -f 1)"
    else
        differ=1
    fi
done
exit $differ
