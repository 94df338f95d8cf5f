#!/bin/sh
# Install what is missing of Debian's packages, after saying what and how large.
#
# usage: deps.sh [--list] GROUP...     GROUP: build test bench fuzz
# --list  print the packages of the groups and do nothing
# exit 0: all there; 1: something is missing and could not be installed, with the command that would
set -eu

packages_of() {
    case $1 in
    build) echo gcc libc6-dev make cmake ninja-build pkg-config \
        libjansson-dev libpcre2-dev libutf8proc-dev libssl-dev libcurl4-openssl-dev ;;
    test) echo libcmocka-dev python3 python3-venv clang-format iproute2 chromium ;;
    bench) echo libdnnl2 ;; # oneDNN: the peer in the benches, never linked by the product
    fuzz) echo clang libclang-rt-14-dev ;;
    *) echo "deps: no group '$1'; there are: build test bench fuzz" >&2; exit 2 ;;
    esac
}

list_only=
[ "${1-}" != --list ] || { list_only=yes; shift; }
[ $# -gt 0 ] || set -- build test
wanted=
for group; do
    wanted="$wanted $(packages_of "$group")"
done
# shellcheck disable=SC2086 # lists of words, here and below
[ -z "$list_only" ] || { printf '%s\n' $wanted; exit 0; }

if ! command -v dpkg-query >/dev/null; then
    # Not Debian: look for what matters and leave the names of packages to whoever knows them.
    lacking=
    for tool in cc cmake ninja pkg-config; do
        command -v "$tool" >/dev/null || lacking="$lacking $tool"
    done
    for library in 'jansson >= 2.14' libpcre2-8 libutf8proc libcrypto 'libcurl >= 7.76'; do
        pkg-config --exists "$library" 2>/dev/null || lacking="$lacking, the library $library"
    done
    [ -n "$lacking" ] || exit 0
    echo "deps: this is not a Debian system, so nothing is installed here. Missing:$lacking" >&2
    echo "deps: Debian's names of all that is needed:$wanted" >&2
    exit 1
fi

# shellcheck disable=SC2086
there=$(dpkg-query -W -f '${db:Status-Status} ${Package}\n' $wanted 2>/dev/null || true)
missing=
for package in $wanted; do
    case "
$there
" in
    *"
installed $package
"*) ;;
    *) missing="$missing $package" ;;
    esac
done
[ -n "$missing" ] || exit 0

echo "deps: not installed:$missing"
sudo=
if [ "$(id -u)" -ne 0 ]; then
    if ! command -v sudo >/dev/null; then
        echo "deps: this needs root, and there is no sudo. As root, run:" >&2
        echo "    apt-get update && apt-get install --no-install-recommends$missing" >&2
        exit 1
    fi
    sudo='sudo env LC_ALL=C DEBIAN_FRONTEND=noninteractive' # sudo passes no environment on
fi
export LC_ALL=C DEBIAN_FRONTEND=noninteractive
$sudo apt-get update -qq
for package in $missing; do
    apt-cache show --no-all-versions "$package" | awk -v package="$package" '
        /^Size:/ { size = $2 } /^Installed-Size:/ { installed = $2 }
        END { printf "deps: %-20s %7d kB to download, %7d kB installed\n",
              package, size / 1000, installed }'
done
# With all that they depend on, as apt-get counts it ("Need to get ...", "After this operation ...").
# shellcheck disable=SC2086
$sudo apt-get install --no-install-recommends --assume-no $missing |
    sed -n -e 's/^Need to get/deps: with what they depend on: need to get/p' \
        -e 's/^After this operation/deps: after this operation/p' || true
# shellcheck disable=SC2086
$sudo apt-get install -qq --no-install-recommends --assume-yes $missing >/dev/null
echo "deps: installed:$missing"
