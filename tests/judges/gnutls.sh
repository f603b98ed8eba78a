#!/usr/bin/env bash
# Judges issued device certificates with GnuTLS: gnutls.sh ROOT.pem ISSUER.pem CERT.pem…
#
# ROOT is trusted; ISSUER holds the issuing CA first, then whatever stands between it and ROOT. Prints
# `N certificates verified`, or on standard error the first bad certificate and what is wrong with it, and exits 1.
set -euo pipefail
export LC_ALL=C

if [ $# -lt 3 ]; then
    echo "usage: gnutls.sh ROOT.pem ISSUER.pem CERT.pem…" >&2
    exit 2
fi
root=$1 issuer=$2
shift 2

# certtool verifies one chain a process; a few processes at a time, each with a share of the files.
verify() {
    local root=$1 issuer=$2 certificate said
    shift 2
    for certificate in "$@"; do
        if ! said=$(cat -- "$certificate" "$issuer" | certtool --verify --verify-profile medium \
            --verify-purpose 1.3.6.1.5.5.7.3.2 --load-ca-certificate "$root" 2>&1); then
            echo "gnutls: $certificate: $(grep -Ei 'not verified|error' <<<"$said" | head -n 1 | sed 's/^\s*//')" >&2
            return 1
        fi
    done
}
export -f verify
share=$((($# + $(nproc) - 1) / $(nproc)))
[ "$share" -le 500 ] || share=500
# shellcheck disable=SC2016
printf '%s\0' "$@" | xargs -0 -P "$(nproc)" -n "$share" bash -c 'verify "$@"' verify "$root" "$issuer" || exit 1

# What --verify does not look at: certtool's decoder complains in the text, and a device is no CA.
certificates=("$@")
complaint=$(cat -- "$@" | certtool --certificate-info 2>&1 | awk '
    /^X.509 Certificate Information/ { found++ }
    tolower($0) ~ /^[ \t]*(error|warning)[: ]/ { print found, $0; bad = 1; exit }
    /Certificate Authority \(CA\): TRUE/ { print found, "it says that it is a CA"; bad = 1; exit }
    /Certificate signing\.|CRL signing\./ { print found, "its key may sign certificates or CRLs"; bad = 1; exit }
    END { if (!bad && found != '"$#"') print 0, found " certificates in '"$#"' files" }
' || true)
if [ -n "$complaint" ]; then
    at=${complaint%% *}
    [ "$at" -gt 0 ] && name=${certificates[at - 1]} || name=all
    echo "gnutls: $name: ${complaint#* }" >&2
    exit 1
fi
echo "$# certificates verified"
