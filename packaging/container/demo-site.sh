#!/bin/bash
# What the compose file's demonstration needs once, in /site: demo-site [DEVICES]. A SoftHSM token, the ceremony, the daemon's
# certificate for the name `daemon`, two stations with a hot folder each, and CSRs in them as devices would make them.
set -euo pipefail
umask 077
# The image names it for the daemon, which does not run yet: enrolments use the key itself.
unset BIRTHMARK_SOCKET
cd "${SITE:-/site}"
devices=${1:-100}
examples=/usr/share/doc/birthmark/hsm-config

if [ -e ready ]; then
    echo "demo-site: $PWD is set up"
    exit 0
fi
bash "$examples/softhsm/setup.sh" hsm >/dev/null
cp "$examples/ceremony.toml" .
# For every network card of the container: other containers connect.
sed -e '/^\[server\]/,/^\[/s/^listen = .*/listen = "0.0.0.0:8443"/' -e '/^\[http\]/,/^\[/s/^listen = .*/listen = "0.0.0.0:8446"/' \
    -e 's/^socket = .*/socket = "admin.sock"/' "$examples/birthmark.toml" >birthmark.toml
birthmark ceremony ceremony.toml --yes
birthmark station enroll birthmark --role server --dns daemon --dns localhost --ip 127.0.0.1 --out server
for station in tester1 tester2; do
    birthmark station enroll "line1/$station" --out "$station"
    mkdir -p "$station/in" "$station/out"
    for number in $(seq "$devices"); do
        device=$station-$number
        openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout "$station/$device.key" \
            -subj "/CN=$device" -out "$station/$device.pem" 2>/dev/null
        # Whole when the station sees it.
        mv "$station/$device.pem" "$station/in/$device.csr"
    done
done
touch ready
echo "demo-site: two stations with $devices devices each; the order is lot-1"
