#!/bin/sh
# Each world with a planted bug must break a promise within 1,000 seeds.
#
# usage: bugs.sh WORLD...
# exit 0: all were found; 1: "NAME: not found" for each that was not.
set -eu
rc=0
for world; do
    name=${world##*/world-bug-}
    if said=$("$world" --seeds 1-1000 --expect-failure 2>&1); then
        echo "$name: $(echo "$said" | head -n 1)"
    else
        echo "$name: not found: $(echo "$said" | tail -n 1)"
        rc=1
    fi
done
exit $rc
