#!/usr/bin/env python3
"""Hold the documentation against the tree.

- every room has a README.md
- every function in include/mooncake has a comment directly above it
- every relative link of a Markdown file leads to a file
- docs/status.md: every line of "What it must show" has a command and a result
- no file names a path of somebody's machine

usage: check_docs.py [ROOT]      exit 0: all hold; 1: one line for each that does not
"""
import pathlib
import re
import shutil
import subprocess
import sys

# Homes and checkouts; spelt so that this file does not find itself.
MACHINE_PATH = re.compile(rb"(?<![\w.~-])/(?:home|root|work|opt|Users)/\w")
LINK = re.compile(r"\]\(([^)\s#]+)(?:#[^)]*)?\)")


def files_of(root):
    """Every file that is, or could be, committed."""
    if (root / ".git").exists() and shutil.which("git"):
        command = ["git", "-C", str(root), "ls-files", "-z", "-co", "--exclude-standard"]
        listed = subprocess.run(command, check=False, capture_output=True)
        if listed.returncode == 0:  # git refuses a checkout that another user owns
            found = (root / name.decode() for name in listed.stdout.split(b"\0") if name)
            return sorted(path for path in found if path.is_file())
    return sorted(path for path in root.rglob("*") if path.is_file()
                  and path.relative_to(root).parts[0] not in ("build", ".git")
                  and "__pycache__" not in path.parts)


def check_readmes(root, files):
    folders = set()
    for name in (file.relative_to(root).parts for file in files):
        if name[0] == "src" and len(name) > 2:
            folders.add("/".join(name[:2]))
        elif name[0] in ("tests", "bench", "tools", "bindings", "compat") and len(name) > 1:
            folders.add(name[0])
    return [f"{folder}: has no README.md (what it is for, what it may use, where to start)"
            for folder in sorted(folders) if not (root / folder / "README.md").is_file()]


def check_headers(root):
    """A declaration that begins with MC_API follows a line that ends a comment."""
    wrong = []
    for header in sorted((root / "include").rglob("*.h")):
        lines = header.read_text().splitlines()
        for number, line in enumerate(lines, 1):
            if line.startswith("MC_API ") and not lines[number - 2].endswith("*/"):
                name = re.search(r"(\w+)\(", line)
                wrong.append(f"{header.relative_to(root)}:{number}: {name[1] if name else line}: "
                             "say above it what it does, takes and returns")
    return wrong


def check_links(root, files):
    wrong = []
    for file in (f for f in files if f.suffix == ".md"):
        for number, line in enumerate(file.read_text().splitlines(), 1):
            for target in LINK.findall(line):
                if "://" in target or target.startswith("mailto:"):
                    continue
                if not (file.parent / target).exists():
                    wrong.append(f"{file.relative_to(root)}:{number}: link to {target}: no such file")
    return wrong


def check_status(root):
    """Rows `| what | command | result |` below the heading; each cell says something."""
    path = root / "docs/status.md"
    if not path.is_file():
        return ["docs/status.md: missing; it is the first thing that the next person reads"]
    wrong, rows, inside = [], 0, False
    for number, line in enumerate(path.read_text().splitlines(), 1):
        if line.startswith("## "):
            inside = "What it must show" in line
        if not inside or not line.startswith("|") or set(line) <= set("|-: "):
            continue
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        rows += 1
        if rows == 1:
            continue  # the head
        if len(cells) != 3 or not all(cells):
            wrong.append(f"docs/status.md:{number}: expected | what | command | last result |")
        elif "`" not in cells[1]:
            wrong.append(f"docs/status.md:{number}: the second cell is a `command`")
    if rows < 2:
        wrong.append('docs/status.md: no table under "What it must show"')
    return wrong


def check_paths(root, files):
    wrong = []
    for file in files:
        data = file.read_bytes()
        if b"\0" in data[:8192]:
            continue  # weights and the like
        for number, line in enumerate(data.splitlines(), 1):
            match = MACHINE_PATH.search(line)
            if match:
                wrong.append(f"{file.relative_to(root)}:{number}: names the path "
                             f"{match[0].decode(errors='replace')}...; make it relative")
    return wrong


def check(root):
    files = files_of(root)
    return (check_readmes(root, files) + check_headers(root) + check_links(root, files)
            + check_status(root) + check_paths(root, files))


if __name__ == "__main__":
    tree = pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else pathlib.Path(__file__).parent.parent
    found = check(tree.resolve())
    print("\n".join(found) if found else "docs: they hold")
    sys.exit(1 if found else 0)
