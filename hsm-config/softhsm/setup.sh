#!/usr/bin/env bash
# Makes SoftHSM tokens of your own, without root: their folder, its softhsm2.conf, random PINs and the tokens.
#
#   setup.sh [FOLDER] [LABEL]...     FOLDER: default ./hsm
#
# Without a label it makes the four tokens of the example ceremony: birthmark (the issuing CA), birthmark-root,
# birthmark-station-ca and birthmark-audit, each with a PIN of its own, so that whoever has one has not all.
# It replaces nothing. The user PIN of the first token is in FOLDER/pin, that of another one in FOLDER/LABEL.pin, the
# security officer's, for all of them, in FOLDER/so-pin; all of mode 600.
set -euo pipefail
umask 077

folder=${1:-hsm}
if [ $# -gt 0 ]; then
    shift
fi
if [ $# -eq 0 ]; then
    set -- birthmark birthmark-root birthmark-station-ca birthmark-audit
fi
first=$1

# The file with the user PIN of a token.
pin_of() {
    if [ "$1" = "$first" ]; then
        echo "$folder/pin"
    else
        echo "$folder/$1.pin"
    fi
}

fail() {
    echo "setup.sh: $1" >&2
    exit 1
}

command -v softhsm2-util >/dev/null || fail "softhsm2-util is not installed; on Debian and Ubuntu: apt-get install softhsm2"

module=${SOFTHSM2_MODULE:-}
if [ -z "$module" ]; then
    for candidate in /usr/lib/softhsm/libsofthsm2.so /usr/lib/*/softhsm/libsofthsm2.so \
        /usr/lib64/pkcs11/libsofthsm2.so /usr/lib64/libsofthsm2.so /usr/local/lib/softhsm/libsofthsm2.so \
        /opt/homebrew/lib/softhsm/libsofthsm2.so; do
        if [ -e "$candidate" ]; then
            module=$candidate
            break
        fi
    done
fi
if [ -z "$module" ] || [ ! -e "$module" ]; then
    fail "libsofthsm2.so was not found; set SOFTHSM2_MODULE to its path"
fi

mkdir -p -- "$folder"
folder=$(cd -- "$folder" && pwd)
for name in tokens softhsm2.conf pin so-pin; do
    [ ! -e "$folder/$name" ] || fail "$folder/$name exists; choose another folder, or remove it if the token is not needed"
done
mkdir -- "$folder/tokens"

# The user's own configuration is left alone: SOFTHSM2_CONF names this one.
cat >"$folder/softhsm2.conf" <<CONF
directories.tokendir = $folder/tokens
objectstore.backend = file
log.level = ERROR
slots.removable = false
CONF

# 96 random bits in hexadecimal.
random_pin() {
    od -An -v -N12 -tx1 /dev/urandom | tr -d ' \n'
}
random_pin >"$folder/so-pin"

# softhsm2-util takes PINs as arguments only, so they are seen in ps for a moment. It serves tests and trials; a real
# HSM's own tool asks for them.
export SOFTHSM2_CONF="$folder/softhsm2.conf"
for label; do
    random_pin >"$(pin_of "$label")"
    softhsm2-util --module "$module" --init-token --free --label "$label" \
        --pin "$(cat "$(pin_of "$label")")" --so-pin "$(cat "$folder/so-pin")" >/dev/null ||
        fail "softhsm2-util could not make the token $label; remove $folder and try again"
    echo "The token \"$label\" is ready; its URI: pkcs11:token=$label?module-path=$module&pin-source=file:$(pin_of "$label")"
done

cat <<NEXT

  module        $module
  environment   SOFTHSM2_CONF=$folder/softhsm2.conf

Next, in the folder with ceremony.toml (hsm-config/ has one that fits what "setup.sh hsm" makes):

  birthmark ceremony ceremony.toml
NEXT
