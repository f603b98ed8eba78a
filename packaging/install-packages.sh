#!/bin/sh
# Installs from Debian's packages what is missing, and says so: install-packages.sh TEST=PACKAGE…
#
# TEST tells whether PACKAGE is needed: `/path` is a file that must exist, `python3:MODULE` a Python module that must
# import, anything else a program that must be on PATH. Nothing is done, and nothing is printed, if all are there.
set -eu

present() {
    case $1 in
    /*) [ -e "$1" ] ;;
    python3:*) python3 -c "import ${1#python3:}" 2>/dev/null ;;
    *) command -v "$1" >/dev/null 2>&1 ;;
    esac
}

missing=
for pair in "$@"; do
    present "${pair%%=*}" || missing="$missing ${pair#*=}"
done
[ -n "$missing" ] || exit 0

if ! command -v apt-get >/dev/null 2>&1; then
    echo "install-packages: these are missing and there is no apt-get to install them:$missing" >&2
    exit 1
fi
as_root=
if [ "$(id -u)" -ne 0 ]; then
    if ! command -v sudo >/dev/null 2>&1; then
        echo "install-packages: not root and no sudo; as root, run: apt-get install$missing" >&2
        exit 1
    fi
    as_root=sudo
fi

echo "install-packages: installing from Debian's packages:$missing" >&2
log=$(mktemp)
trap 'rm -f "$log"' EXIT
# `env` carries the variable through sudo; $missing and $as_root are lists of words.
# shellcheck disable=SC2086
if ! { $as_root apt-get update -q &&
    $as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends $missing; } \
    </dev/null >"$log" 2>&1; then
    cat "$log" >&2
    echo "install-packages: apt-get failed, see above" >&2
    exit 1
fi
for pair in "$@"; do
    present "${pair%%=*}" && continue
    echo "install-packages: ${pair#*=} is installed but ${pair%%=*} is still missing" >&2
    exit 1
done
