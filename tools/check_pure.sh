#!/bin/sh
# Pure rooms touch no file, clock, thread or socket: the symbols that their archives leave undefined
# must be defined in one of the archives given or be in tools/pure-symbols.txt.
#
# With --quiet instead, for every library: the symbols of `loud` and `unsafe` below may not be asked for.
# To read the environment, end the process or print is the command's part (src/cmd); the others cannot
# be told how much room there is, keep state between calls, or cannot say that they failed.
#
# usage: check_pure.sh [--quiet] ARCHIVE...
# exit 0: so it is; 1: "archive(object): symbol ..." for each that is not. NM names the nm to use.
set -eu
nm=${NM:-nm}
list=$(dirname "$0")/pure-symbols.txt
loud='((secure_)?getenv|setenv|putenv|_?exit|_Exit|quick_exit|v?printf|puts|putchar|perror|std(in|out|err))'
loud="$loud|__v?printf_chk|setlocale"
unsafe='(__)?(v?sprintf|str(cat|cpy)|stpcpy)(_chk)?|gets|strtok|(local|gm|c|asc)time|ato(i|l|ll|f)|s?rand'
quiet=
[ "${1-}" != --quiet ] || { quiet=yes; shift; }
[ $# -gt 0 ] || { echo "usage: $0 [--quiet] ARCHIVE..." >&2; exit 2; }
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
awk '{ print $2 }' "$work/foreign" | sort -u >"$work/asked"
if [ "$quiet" ]; then
    reason='is not for a library; tools/check_pure.sh says why'
    grep -Ex "$loud|$unsafe" "$work/asked" >"$work/bad" || true
else
    reason='is not in tools/pure-symbols.txt'
    grep -Evxf "$work/allowed" "$work/asked" >"$work/bad" || true
fi
if [ -s "$work/bad" ]; then
    awk -v bad="$work/bad" -v reason="$reason" 'BEGIN { while ((getline s < bad) > 0) is[s] = 1 }
        $2 in is { sub(/^.*\//, "", $1); sub(/:$/, "", $1); sub(/:/, "(", $1);
                   print $1 "): " $2 " " reason }' "$work/foreign"
    exit 1
fi
echo "fine: $(wc -l <"$work/asked") symbols asked for"
