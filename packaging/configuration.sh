#!/bin/sh
# Prints the configuration of the package: the example (hsm-config/birthmark.toml) with the places of the unit.
set -eu
cd "$(dirname "$0")/.."

cat <<'HEAD'
# The configuration of the unit birthmark.service. The keys and certificates that this file names are made first:
# /usr/share/doc/birthmark/docs/install.md is the way to a running daemon.
#
HEAD
# In place of the steps in a folder of one's own, which the example begins with.
sed -e '1,/^# Relative paths/{/^# Relative paths/!d}' \
    -e 's|^socket = .*|socket = "/run/birthmark/admin.sock"|' \
    -e 's|^path = "data"|path = "/var/lib/birthmark"|' hsm-config/birthmark.toml
