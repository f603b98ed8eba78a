#!/usr/bin/env bash
# Reads a CSV with PostgreSQL's COPY, in a cluster of its own that is gone afterwards: postgres.sh FILE.csv
#
# Prints the rows as a JSON array of objects. PostgreSQL does not run as root, so root runs it as the user postgres.
set -euo pipefail

if [ $# -ne 1 ]; then
    echo "usage: postgres.sh FILE.csv" >&2
    exit 2
fi
file=$(realpath "$1")
bin=$(find /usr/lib/postgresql -maxdepth 2 -name bin | sort -V | tail -n 1)
work=$(mktemp -d)
as=()
if [ "$(id -u)" = 0 ]; then
    chown postgres "$work"
    as=(setpriv --reuid=postgres --regid=postgres --clear-groups)
fi
cd "$work"
trap '"${as[@]}" "$bin/pg_ctl" -D "$work/data" -m immediate stop >/dev/null 2>&1 || true; rm -rf "$work"' EXIT
"${as[@]}" "$bin/initdb" -D "$work/data" -A trust -U judge -E UTF8 --locale=C --no-sync >/dev/null
"${as[@]}" "$bin/pg_ctl" -D "$work/data" -l "$work/log" -w -o "-k '$work' -c listen_addresses='' -c fsync=off" start >/dev/null

# Every column of the header is text; none of the names has a comma or quotation mark here.
columns=$(head -n 1 "$file" | tr -d '\r' | sed 's/"//g; s/,/" text, "/g; s/^/"/; s/$/" text/')
psql -X -q -At -h "$work" -U judge -d postgres -v ON_ERROR_STOP=1 <<END
CREATE TABLE devices ($columns);
\\copy devices FROM '$file' WITH (FORMAT csv, HEADER match, NULL 'no null', ENCODING 'UTF8')
SELECT json_agg(devices) FROM devices;
END
