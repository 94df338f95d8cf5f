#!/usr/bin/env python3
"""Hold every #include of the tree against tools/layers.txt.

usage: check_layers.py [ROOT]      exit 0: all allowed; 1: one line for each that is not
"""
import pathlib
import re
import sys

INCLUDE = re.compile(rb'^[ \t]*#[ \t]*include[ \t]*(["<])([^">]+)[">]')
SUFFIXES = {".c", ".h", ".def", ".inc", ".cu"}
TOP_ROOMS = ("include", "bindings", "compat", "tests", "bench")


def read_table(path):
    """{room: set of rooms it may include}"""
    table = {}
    for number, line in enumerate(path.read_text().splitlines(), 1):
        line = line.split("#")[0].strip()
        if not line:
            continue
        match = re.fullmatch(r"([a-z0-9/]+)( pure)?:((?: [a-z0-9/*]+)*)", line)
        if not match or match[1] in table:
            sys.exit(f"{path}:{number}: expected 'room [pure]: room ...', each room once")
        table[match[1]] = set(match[3].split())
    for room, allowed in table.items():
        for other in allowed - {"*"} - set(table):
            sys.exit(f"{path}: {room} may include '{other}', which is no room")
    return table


def room_of(path, table):
    """The room whose name begins `path` (as an #include spells it), or None."""
    parts = path.split("/")[:-1]
    for length in range(len(parts), 0, -1):
        if "/".join(parts[:length]) in table:
            return "/".join(parts[:length])
    return None


def complaint(room, form, target, file, table):
    """What is wrong with `room` including `target`, or None."""
    if ".." in target.split("/") or target.startswith("/"):
        return "an include is spelt from src/ or include/, never by a relative or absolute path"
    if target.startswith("mooncake/") or "/" not in target and form == "<":
        return None
    other = room_of(target, table)
    if other is None:
        if form == "<":
            return None  # the system's: sys/mman.h
        if room in TOP_ROOMS:
            return None  # beside it, in the harness, or generated: the compiler finds it or not
        beside = (file.parent / target).exists()
        return "write it with its room: " + (room + "/" + target if beside else "room/" + target)
    if other == room or other in table[room] or "*" in table[room]:
        return None
    may = ", ".join(sorted(table[room])) or "no other room"
    return f"{room} may include {may}; see tools/layers.txt"


def check(root):
    table = read_table(root / "tools/layers.txt")
    wrong = []
    tops = [root / "src"] + [root / top for top in TOP_ROOMS]
    for top in tops:
        for file in sorted(p for p in top.rglob("*") if p.suffix in SUFFIXES):
            name = file.relative_to(root).as_posix()
            room = room_of(name.removeprefix("src/"), table) or room_of(name, table)
            if room == "src" and name.count("/") > 1:
                room = None
            if room is None:
                wrong.append(f"{name}: its folder is no room; add one to tools/layers.txt")
                continue
            for number, line in enumerate(file.read_bytes().splitlines(), 1):
                match = INCLUDE.match(line)
                if not match:
                    continue
                target = match[2].decode(errors="replace")
                reason = complaint(room, match[1].decode(), target, file, table)
                if reason:
                    wrong.append(f'{name}:{number}: includes "{target}": {reason}')
    return wrong


if __name__ == "__main__":
    tree = pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else pathlib.Path(__file__).parent.parent
    found = check(tree.resolve())
    print("\n".join(found) if found else "layers: every include is allowed")
    sys.exit(1 if found else 0)
