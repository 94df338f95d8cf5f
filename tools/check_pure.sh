#!/bin/sh
# Pure rooms touch no file, clock, thread or socket: the symbols that their archives leave undefined
# must be defined in one of the archives given or be in tools/pure-symbols.txt.
#
# usage: check_pure.sh ARCHIVE...      exit 0: pure; 1: "archive(object): symbol" for each that is not
# NM names the nm to use.
set -eu
nm=${NM:-nm}
list=$(dirname "$0")/pure-symbols.txt
[ $# -gt 0 ] || { echo "usage: $0 ARCHIVE..." >&2; exit 2; }
for archive; do
    [ -r "$archive" ] || { echo "$archive: cannot read" >&2; exit 2; }
done

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
sed -e 's/[[:space:]]*#.*//' -e '/^$/d' "$list" >"$work/allowed"
"$nm" -A --defined-only "$@" | awk '{ print $NF }' | sort -u >"$work/defined"
# -A writes "archive:object: U symbol"; versions (memcpy@GLIBC_2.14) are cut off.
"$nm" -A --undefined-only "$@" | awk '{ sub(/@.*/, "", $NF); print $1, $NF }' | sort -u |
    awk -v defined="$work/defined" 'BEGIN { while ((getline s < defined) > 0) have[s] = 1 }
                                    !($2 in have) { print }' >"$work/foreign"
awk '{ print $2 }' "$work/foreign" | sort -u | grep -Evxf "$work/allowed" >"$work/bad" || true
if [ -s "$work/bad" ]; then
    awk -v bad="$work/bad" 'BEGIN { while ((getline s < bad) > 0) is[s] = 1 }
        $2 in is { sub(/^.*\//, "", $1); sub(/:$/, "", $1); sub(/:/, "(", $1);
                   print $1 "): " $2 " is not in tools/pure-symbols.txt" }' "$work/foreign"
    exit 1
fi
echo "pure: $(awk '{ print $2 }' "$work/foreign" | sort -u | wc -l) symbols asked for, all listed"
