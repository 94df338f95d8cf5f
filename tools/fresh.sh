#!/bin/sh
# Time the README's two commands as a stranger meets them: a bare Debian 12 in a folder, a user with
# sudo, two processors, a fresh clone of HEAD with nothing beside it.
#
# usage: fresh.sh [COMMAND...]      default: make run until its gateway has answered, "make test"
# Needs root, debootstrap and a network. Takes about 2 GB in a new folder of TMPDIR, removed at the end;
# mounts live in a namespace of their own and end with it. BARE=FOLDER keeps the bare system there for
# the next time.
set -eu
[ "$(id -u)" -eq 0 ] || { echo "fresh: run as root" >&2; exit 2; }
command -v debootstrap >/dev/null || { echo "fresh: apt-get install debootstrap" >&2; exit 2; }
repository=$(cd "$(dirname "$0")/.." && pwd)
# `make run` serves until it is told to end: its time is that to the first answer. What still runs when a
# command ends goes with its process namespace.
serve='make run >run.log 2>&1 & until grep -q "serve .*ready:" run.log; do kill -0 $! 2>/dev/null ||
    { cat run.log; exit 1; }; sleep 0.2; done; cat run.log; exec 3<>/dev/tcp/127.0.0.1/8000
    body="{\"prompt\": \"The KVCache of a prompt\"}"
    printf "POST /v1/completions HTTP/1.0\r\nContent-Length: ${#body}\r\n\r\n$body" >&3; cat <&3'
[ $# -gt 0 ] || set -- "$serve" "make test"

root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT
bare=${BARE:-$root/bare}
if [ ! -e "$bare/etc/debian_version" ]; then
    echo "fresh: making a bare system"
    debootstrap --variant=minbase --include=git,make,sudo,ca-certificates bookworm "$bare" >"$root/log" ||
        { tail "$root/log" >&2; exit 1; }
fi
cp -a "$bare" "$root/system"
system=$root/system
cp /etc/resolv.conf "$system/etc/resolv.conf"
cp /etc/ssl/certs/ca-certificates.crt "$system/etc/ssl/certs/" # also those of a site's own proxy
echo "127.0.0.1 localhost $(hostname)" >"$system/etc/hosts"
chroot "$system" useradd --create-home --shell /bin/bash user
echo 'user ALL=(ALL) NOPASSWD:ALL' >"$system/etc/sudoers.d/user"
git clone --quiet --no-local "$repository" "$system/clone"
git -C "$system/clone" log -1 --format='fresh: %h %s'
chroot "$system" chown -R user: /clone

for command; do
    echo "fresh: $command"
    begin=$(date +%s)
    # A process namespace too, so that nothing outlives a command.
    SYSTEM=$system COMMAND=$command unshare --mount --pid --fork sh -euc '
        mount --bind /dev "$SYSTEM/dev"
        mount -t devpts devpts "$SYSTEM/dev/pts"
        mount -t proc proc "$SYSTEM/proc"
        exec taskset -c 0,1 chroot "$SYSTEM" su - user -c "cd /clone || exit; $COMMAND"'
    echo "fresh: $command: $(($(date +%s) - begin)) s"
done
