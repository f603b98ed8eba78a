#!/usr/bin/env bash
# Measures birthmark and its peers one after the other, on this machine and with the same CSRs, and prints one table.
#
#   run.sh [FOLDER]     FOLDER: a new one for the CSRs and each program's result; default: a temporary one
#
# BIRTHMARK   the program; default target/release/birthmark
# SECONDS_EACH   how long each is measured; default 10
#
# All sign with a P-256 CA key. Each peer has it as easy as it can be: cfssl has its key in memory, stores nothing and
# speaks plain HTTP, to a client written in C; openssl stores nothing; python-x509-pkcs11 checks no proof of possession.
set -euo pipefail

here=$(cd -- "$(dirname -- "$0")" && pwd)
root=$(cd -- "$here/../.." && pwd)
birthmark=${BIRTHMARK:-$root/target/release/birthmark}
seconds=${SECONDS_EACH:-10}
venv=$here/.venv

fail() {
    echo "run.sh: $1" >&2
    exit 1
}

[ -x "$birthmark" ] || fail "there is no $birthmark; build it with \`cargo build --release\`, or name it with BIRTHMARK"
"$root/packaging/install-packages.sh" softhsm2-util=softhsm2 openssl=openssl cfssl=golang-cfssl wrk=wrk curl=curl \
    python3=python3 python3:ensurepip=python3-venv
if [ ! -e "$venv/ready" ] || [ "$here/requirements.txt" -nt "$venv/ready" ]; then
    python3 -m venv --clear "$venv"
    "$venv/bin/pip" install --quiet --disable-pip-version-check --requirement "$here/requirements.txt"
    touch "$venv/ready"
fi

cfssl=
temporary=
clean_up() {
    # It has ended already, or the measurement failed.
    [ -z "$cfssl" ] || kill "$cfssl" 2>/dev/null || true
    [ -z "$temporary" ] || rm -rf "$temporary"
}
trap clean_up EXIT
if [ $# -gt 0 ]; then
    folder=$1
    [ ! -e "$folder" ] || fail "$folder exists; choose a new folder"
    mkdir -p -- "$folder"
else
    temporary=$(mktemp -d)
    folder=$temporary
fi
folder=$(cd -- "$folder" && pwd)

step() {
    echo "· $1" >&2
}

step "birthmark: 4 stations, 64 requests open each"
"$birthmark" bench --json --seconds "$seconds" --csrs-out "$folder/csrs" >"$folder/birthmark.json"
find "$folder/csrs" -name '*.pem' | sort >"$folder/csrs.list"

cd "$folder"
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj "/CN=Peer CA" -days 3650 \
    -keyout ca-key.pem -out ca.pem 2>openssl.log || fail "openssl made no CA: $(cat openssl.log)"

# User and system time of a process, in seconds.
cpu_seconds() {
    awk -v ticks="$(getconf CLK_TCK)" '{ sub(/.*\) /, ""); print ($12 + $13) / ticks }' "/proc/$1/stat"
}

step "cfssl serve: 16 connections"
echo '{"signing": {"default": {"usages": ["digital signature", "client auth"], "expiry": "175200h"}}}' >cfssl-config.json
port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
cfssl serve -address 127.0.0.1 -port "$port" -ca ca.pem -ca-key ca-key.pem -config cfssl-config.json -loglevel 4 \
    >cfssl.log 2>&1 &
cfssl=$!
for _ in $(seq 100); do
    curl --silent --output /dev/null "http://127.0.0.1:$port/" && break
    kill -0 "$cfssl" 2>/dev/null || fail "cfssl ended: $(cat cfssl.log)"
    sleep 0.1
done
# wrk counts answers, so one is looked at.
python3 -c 'import json, sys; print(json.dumps({"certificate_request": sys.stdin.read()}))' \
    <"$(head -n 1 csrs.list)" >cfssl-request.json
curl --silent --show-error --data @cfssl-request.json "http://127.0.0.1:$port/api/v1/cfssl/sign" >cfssl-reply.json
grep -q "BEGIN CERTIFICATE" cfssl-reply.json || fail "cfssl gave no certificate: $(cat cfssl-reply.json)"
load() {
    wrk --threads 1 --connections 16 --duration "$1s" --script "$here/cfssl.lua" "http://127.0.0.1:$port" -- csrs.list
}
load 2 >/dev/null
before=$(cpu_seconds "$cfssl")
load "$seconds" >wrk.log
after=$(cpu_seconds "$cfssl")
kill "$cfssl"
wait "$cfssl" 2>/dev/null || true
cfssl=
sed -n "s/^RESULT {/{\"cpu_seconds\": $(awk "BEGIN { print $after - $before }"), /p" wrk.log >cfssl.json
[ -s cfssl.json ] || fail "wrk gave no result: $(cat wrk.log)"

step "python-x509-pkcs11"
"$root/hsm-config/softhsm/setup.sh" hsm peer >token.log
module=$(awk '$1 == "module" { print $2 }' token.log)
head -n 2000 csrs.list | SOFTHSM2_CONF=$folder/hsm/softhsm2.conf PKCS11_MODULE=$module PKCS11_TOKEN=peer \
    PKCS11_PIN=$(cat hsm/pin) xargs "$venv/bin/python" "$here/python_x509.py" "$seconds" >python-x509-pkcs11.json

step "openssl x509 -req, a loop"
signed=0
began=$(date +%s.%N)
end=$((SECONDS + seconds))
while [ "$SECONDS" -lt "$end" ]; do
    read -r csr
    openssl x509 -req -in "$csr" -CA ca.pem -CAkey ca-key.pem -days 7300 -set_serial "$((signed + 1))" \
        -out certificate.pem 2>openssl.log || fail "openssl signed no certificate: $(cat openssl.log)"
    signed=$((signed + 1))
done <csrs.list
awk "BEGIN { printf \"{\\\"certificates\\\": $signed, \\\"seconds\\\": %f}\\n\", $(date +%s.%N) - $began }" >openssl.json

echo
python3 "$here/table.py" "$folder"
