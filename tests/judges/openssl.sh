#!/usr/bin/env bash
# Judges issued device certificates with OpenSSL: openssl.sh ROOT.pem ISSUER.pem CERT.pem…
#
# ROOT is trusted; ISSUER holds the issuing CA and whatever stands between it and ROOT. Prints
# `N certificates verified`, or on standard error the first bad certificate and what is wrong with it, and exits 1.
set -euo pipefail
export LC_ALL=C

if [ $# -lt 3 ]; then
    echo "usage: openssl.sh ROOT.pem ISSUER.pem CERT.pem…" >&2
    exit 2
fi
root=$1 issuer=$2
shift 2

# One process verifies them all; it says `FILE: OK` for each good one and goes on after a bad one.
if ! said=$(openssl verify -x509_strict -purpose sslclient -no-CApath -no-CAstore \
    -CAfile "$root" -untrusted "$issuer" "$@" 2>&1); then
    bad=$(sed -n '/^error \(.*\): verification failed$/{s//\1: /p;q}' <<<"$said")
    echo "openssl: $bad$(grep -vE ': OK$|: verification failed$' <<<"$said" | head -n 2 | paste -sd ' ')" >&2
    exit 1
fi

# `verify` takes a device that calls itself a CA, and looks only at the first certificate of a file.
certificates=("$@")
complaint=$(cat -- "$@" | openssl storeutl -certs -noout -text /dev/stdin 2>&1 | awk '
    /^[0-9]+: Certificate$/ { found++ }
    /CA:TRUE/ { print found, "it says that it is a CA"; bad = 1; exit }
    /Certificate Sign|CRL Sign/ { print found, "its key may sign certificates or CRLs"; bad = 1; exit }
    END { if (!bad && found != '"$#"') print 0, found " certificates in '"$#"' files" }
' || true)
if [ -n "$complaint" ]; then
    at=${complaint%% *}
    [ "$at" -gt 0 ] && name=${certificates[at - 1]} || name=all
    echo "openssl: $name: ${complaint#* }" >&2
    exit 1
fi
echo "$# certificates verified"
