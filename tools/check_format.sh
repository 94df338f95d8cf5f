#!/bin/sh
# Is every C file as clang-format 14 writes it? Whole files are compared: they have been formatted
# since the first commit, so a changed line is the only way for one to differ. Tables of rows (*.def)
# are laid out by hand.
#
# usage: check_format.sh [--fix] [FILE...]    default: all C files
# exit 0: yes; 1: no, with the lines; 77: clang-format 14 is not here (another version formats
# otherwise)
set -eu
cd "$(dirname "$0")/.."
mode='--dry-run -Werror'
if [ "${1-}" = --fix ]; then
    mode=-i
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
# shellcheck disable=SC2086 # the mode is two words
"$tool" $mode --style=file "$@"
echo "format: $# files"
