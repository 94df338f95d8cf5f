"""Hold include/mooncake/*.h against the library and the compilers.

    api.py exports LIBRARY HEADER...         the library exports what the headers declare, and no more
    api.py alone COMPILER INCLUDE HEADER...  each header compiles alone (C11, or C++17 for a C++ compiler)
    api.py calls UNSUPPORTED HEADER... > C   a C file that calls each function of UNSUPPORTED (the file)

Exit 0: true; 1: not, and every difference is said.
"""

import os
import re
import subprocess
import sys
import tempfile

DECLARATION = re.compile(r"MC_API\s+(?:MC_MUST_USE\s+)?([\w\s\*]+?)(\w+)\s*\(([^;{]*)\)[^;{]*;")


def declarations(path):
    """(name, return type, [parameter]) of every MC_API function in a header."""
    with open(path, encoding="utf-8") as file:
        text = file.read()
    text = re.sub(r"/\*.*?\*/", " ", text, flags=re.S)
    text = re.sub(r"^[ \t]*#(?:[^\n\\]|\\\n)*", "", text, flags=re.M)
    found = []
    for match in DECLARATION.finditer(text):
        parameters = [" ".join(p.split()) for p in match.group(3).split(",")]
        found.append((match.group(2), " ".join(match.group(1).split()), parameters))
    if len(found) != len(re.findall(r"\bMC_API\b", text)):
        sys.exit(f"{path}: a declaration marked MC_API cannot be read")
    return found


def exports(library, *headers):
    declared = {name for header in headers for name, _, _ in declarations(header)}
    listing = subprocess.run(
        ["nm", "-D", "--defined-only", library], check=True, capture_output=True, text=True
    ).stdout
    # A version script's own name is listed as an absolute symbol.
    shown = {line.split()[-1].split("@")[0] for line in listing.splitlines() if " A " not in line}
    for name in sorted(declared - shown):
        print(f"{name}: declared in a public header, not exported by the library")
    for name in sorted(shown - declared):
        print(f"{name}: exported by the library, not declared in a public header")
    print(f"{len(declared)} declared, {len(shown)} exported")
    return declared and declared == shown


def alone(compiler, include, *headers):
    plus = "++" in os.path.basename(compiler)
    language = ["-x", "c++", "-std=c++17"] if plus else ["-x", "c", "-std=c11"]
    good = bool(headers)
    for header in headers:
        with tempfile.NamedTemporaryFile("w", suffix=".c") as source:
            name = os.path.basename(header)
            source.write(f"#include <mooncake/{name}>\n#include <mooncake/{name}>\n")
            source.flush()
            command = [compiler, *language, "-Wall", "-Wextra", "-Wpedantic", "-Werror"]
            command += [f"-I{include}", "-fsyntax-only", source.name]
            good = subprocess.run(command, check=False).returncode == 0 and good
    print(f"{len(headers)} headers")
    return good


def argument(parameter):
    """A value for a parameter: a poisoned block for each pointer, 0 for a number."""
    if "*" in parameter:
        return "error_p" if re.search(r"(?<!const )struct mc_error \*", parameter) else "poison"
    return "0"


def calls(unsupported, *headers):
    """Every function that the file defines, called with poisoned memory for each pointer."""
    with open(unsupported, encoding="utf-8") as file:
        defined = set(re.findall(r"^[A-Z_]+\((mc_\w+),", file.read(), flags=re.M))
    functions = [f for header in headers for f in declarations(header) if f[0] in defined]
    if not functions or defined != {f[0] for f in functions}:
        sys.exit(f"{unsupported}: defines a function that no public header declares")
    print('#include "unit/api/unsupported.h"')
    for name in sorted(os.path.basename(h) for h in headers):
        print(f"#include <mooncake/{name}>")
    for name, returns, parameters in functions:
        values = ", ".join(argument(p) for p in parameters)
        print(f"static mc_status call_{name}(void *poison, struct mc_error *error_p)\n{{")
        print("    (void)error_p;")
        if returns == "void":
            nulls = ", ".join("NULL" if "*" in p else "0" for p in parameters)
            print(f"    {name}({nulls});\n    {name}({values});\n    return MC_E_UNSUPPORTED;\n}}")
        else:
            print(f"    return {name}({values});\n}}")
    print("const struct unsupported_call unsupported_calls[] = {")
    for name, _, parameters in functions:
        text = "true" if any(argument(p) == "error_p" for p in parameters) else "false"
        print(f'    {{ "{name}", call_{name}, {text} }},')
    print("};")
    print(f"const size_t unsupported_count = {len(functions)};")
    return True


if __name__ == "__main__":
    commands = {"exports": exports, "alone": alone, "calls": calls}
    if len(sys.argv) < 4 or sys.argv[1] not in commands:
        sys.exit(__doc__)
    sys.exit(0 if commands[sys.argv[1]](*sys.argv[2:]) else 1)
