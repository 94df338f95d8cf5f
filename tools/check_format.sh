#!/bin/sh
# Is every C file as clang-format 14 writes it? Whole files are compared: they have been formatted
# since the first commit, so a changed line is the only way for one to differ. Tables of rows (*.def)
# are laid out by hand.
#
# usage: check_format.sh [--fix] [FILE...]    default: all C files
# exit 0: yes; 1: no, with the difference; 77: clang-format 14 is not here (another version formats
# otherwise)
set -eu
cd "$(dirname "$0")/.."
fix=
if [ "${1-}" = --fix ]; then
    fix=yes
    shift
fi
tool=
for candidate in clang-format-14 clang-format; do
    if command -v "$candidate" >/dev/null && "$candidate" --version | grep -q 'version 14\.'; then
        tool=$candidate
        break
    fi
done
if [ -z "$tool" ]; then
    echo "format: skipped, clang-format 14 is not installed (Debian 12: clang-format)"
    exit 77
fi
if [ $# -eq 0 ]; then
    # No file name of ours has a blank in it.
    set -- $(find src include bindings compat tests bench -name '*.[ch]' 2>/dev/null | sort)
fi
if [ "$fix" ]; then
    # A row of macros takes clang-format 14 several passes, one line each, until nothing moves.
    passes=0
    until "$tool" --dry-run -Werror --style=file "$@" 2>/dev/null; do
        [ $((passes += 1)) -le 50 ] || { echo "format: still moving after 50 passes" >&2; exit 1; }
        "$tool" -i --style=file "$@"
    done
elif ! "$tool" --dry-run -Werror --style=file "$@" 2>/dev/null; then
    for file; do
        "$tool" --style=file "$file" | diff -u --label "$file" --label "$file, formatted" "$file" - || true
    done
    echo "format: run tools/check_format.sh --fix"
    exit 1
fi
echo "format: $# files"
