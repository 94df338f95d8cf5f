#!/bin/sh
# install.sh CMAKE BUILD COMPILER SANITIZERS - what is installed into an empty root is enough to build
# and run a program with pkg-config alone.
set -eu
root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT
"$1" --install "$2" --prefix "$root/usr" >"$root/log" || { cat "$root/log"; exit 1; }
cat >"$root/use.c" <<'END'
#include <mooncake/p2p.h>
#include <mooncake/store.h>
#include <stdio.h>

int main(void)
{
    struct mc_error error = { 0 };
    mc_p2p *p2p = NULL;
    const mc_status status = mc_p2p_open(NULL, &p2p, &error);

    printf("%s %s: %s\n", mc_version(), mc_status_name(status), error.text);
    mc_p2p_close(p2p);
    return status == MC_E_UNSUPPORTED && !p2p ? 0 : 1;
}
END
pc=$(dirname "$(find "$root/usr" -name mooncake.pc)")
flags=$(PKG_CONFIG_PATH=$pc pkg-config --cflags --libs mooncake)
# shellcheck disable=SC2086 # flags are words
"$3" ${4:+-fsanitize=$4} "$root/use.c" $flags -o "$root/use"
LD_LIBRARY_PATH=$(dirname "$pc") "$root/use"
