#!/usr/bin/env python3
"""Each check of tools/ passes on a good tree and fails, with the right words, on one bad line."""
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[2]
IGNORED = shutil.ignore_patterns("build", ".git", "__pycache__", "models", "data", "corpus")


def run(*command, cwd=None):
    """(exit status, output of both kinds)"""
    done = subprocess.run([str(word) for word in command], cwd=cwd, text=True,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
    return done.returncode, done.stdout


class OnACopy(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.tree = pathlib.Path(self.folder.name) / "tree"
        self.addCleanup(self.folder.cleanup)

    def append(self, name, text):
        path = self.tree / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a") as file:
            file.write(text)


class Layers(OnACopy):
    def setUp(self):
        super().setUp()
        shutil.copytree(ROOT, self.tree, ignore=IGNORED)

    def expect(self, *words):
        status, output = run(sys.executable, "-B", self.tree / "tools/check_layers.py")
        self.assertEqual(status, 1 if words else 0, output)
        for word in words:
            self.assertIn(word, output)

    def test_the_tree_as_it_is_passes(self):
        self.expect()

    def test_an_include_against_the_table_is_named_with_its_line(self):
        lines = len((self.tree / "src/base/buf.c").read_text().splitlines())
        self.append("src/base/buf.c", '#include "os/clock.h"\n')
        self.expect(f"src/base/buf.c:{lines + 1}:", "os/clock.h", "base may include no other room")

    def test_spaces_angle_brackets_and_dots_are_no_way_around(self):
        self.append("src/kv/layout.c", '#  include <os/clock.h>\n#include "../os/file.h"\n'
                                       '#include <mooncake/../os/crew.h>\n')
        self.expect("os/clock.h", "../os/file.h", "mooncake/../os/crew.h")

    def test_the_public_headers_use_no_room(self):
        self.append("include/mooncake/status.h", '#include "base/error.h"\n')
        self.expect("include/mooncake/status.h:", "base/error.h")

    def test_a_room_within_a_room_has_its_own_row(self):
        self.append("src/store/core/place.c", '#include "os/clock.h"\n#include "kv/layout.h"\n')
        self.append("src/store/node/lend.c", '#include "os/clock.h"\n#include "store/core/x.h"\n')
        self.append("src/sched/new.c", '#include "sim/trace.h"\n')
        self.expect("src/store/core/place.c:1:", "src/sched/new.c:1:")
        _, output = run(sys.executable, "-B", self.tree / "tools/check_layers.py")
        self.assertEqual(len(output.splitlines()), 2, output)

    def test_a_folder_that_is_no_room_is_named(self):
        self.append("src/misc/help.c", "\n")
        self.expect("src/misc/help.c", "add one to tools/layers.txt")

    def test_a_file_straight_in_src_is_of_no_room_and_reaches_only_base(self):
        self.append("src/whole.c", '#include "base/error.h"\n')
        self.expect()
        self.append("src/whole.c", '#include "os/clock.h"\n')
        self.expect("src/whole.c:2:", "src may include base")

    def test_an_include_without_its_room_is_named(self):
        self.append("src/os/clock.c", '#include "file.h"\n')
        self.expect("os/file.h")


class Docs(OnACopy):
    def setUp(self):
        super().setUp()
        shutil.copytree(ROOT, self.tree, ignore=IGNORED)
        # Links may lead to what was not copied; the copy is judged against itself.
        self.before = self.complaints()

    def complaints(self):
        _, output = run(sys.executable, "-B", self.tree / "tools/check_docs.py")
        return set(output.splitlines()) - {"docs: they hold"}

    def expect(self, *words):
        new = self.complaints() - self.before
        self.assertEqual(len(new), 1, new)
        for word in words:
            self.assertIn(word, next(iter(new)))

    def test_a_room_without_a_readme_is_named(self):
        self.append("src/unread/heap.c", "\n")
        self.expect("src/unread", "README.md")

    def test_a_public_function_without_a_comment_is_named(self):
        self.append("include/mooncake/status.h", "\nMC_API int mc_silent(void);\n")
        self.expect("include/mooncake/status.h", "mc_silent")

    def test_a_link_to_nothing_is_named(self):
        self.append("docs/words.md", "[gone](nowhere.md#part) [fine](status.md)\n")
        self.expect("docs/words.md", "nowhere.md")

    def test_a_status_line_without_a_result_is_named(self):
        text = (self.tree / "docs/status.md").read_text()
        head = next(line for line in text.splitlines() if line.startswith("|---"))
        (self.tree / "docs/status.md").write_text(
            text.replace(head, head + "\n| it works | `make test` | |", 1))
        self.expect("docs/status.md", "last result")

    def test_a_path_of_somebodys_machine_is_named(self):
        self.append("CHANGELOG.md", "see /" + "home/me/notes\n")
        self.expect("CHANGELOG.md", "make it relative")


class Format(OnACopy):
    def setUp(self):
        super().setUp()
        shutil.copytree(ROOT, self.tree, ignore=IGNORED)
        if run(self.tree / "tools/check_format.sh", "src/base/utf8.h")[0] == 77:
            self.skipTest("clang-format 14 is not installed")

    def test_a_badly_formatted_line_is_named_and_fixed(self):
        self.append("src/base/utf8.c", "int  bad( int a ) ;\n")
        status, output = run(self.tree / "tools/check_format.sh", "src/base/utf8.c")
        self.assertEqual(status, 1, output)
        self.assertIn("--- src/base/utf8.c", output)
        self.assertIn("+int bad(int a);", output)
        run(self.tree / "tools/check_format.sh", "--fix", "src/base/utf8.c")
        self.assertEqual(run(self.tree / "tools/check_format.sh", "src/base/utf8.c")[0], 0)

    def test_without_clang_format_the_check_says_that_it_was_skipped(self):
        tools = self.tree / "bin"
        tools.mkdir()
        (tools / "dirname").symlink_to(shutil.which("dirname"))
        done = subprocess.run(["/bin/sh", str(self.tree / "tools/check_format.sh")], text=True,
                              env={"PATH": str(tools)}, capture_output=True, check=False)
        self.assertEqual(done.returncode, 77, done.stderr)
        self.assertIn("skipped", done.stdout)


class Pure(OnACopy):
    def setUp(self):
        super().setUp()
        self.tree.mkdir()

    def archive(self, name, code):
        source, thing = self.tree / f"{name}.c", self.tree / f"{name}.o"
        source.write_text(code)
        status, output = run(os.environ.get("CC", "cc"), "-c", source, "-o", thing)
        self.assertEqual(status, 0, output)
        library = self.tree / f"lib{name}.a"
        self.assertEqual(run(os.environ.get("AR", "ar"), "rcs", library, thing)[0], 0)
        return library

    def check(self, *libraries):
        return run(ROOT / "tools/check_pure.sh", *libraries)

    def test_memory_and_other_pure_rooms_may_be_used(self):
        one = self.archive("one", "#include <string.h>\nvoid one(char *a, int n);\n"
                                  "void one(char *a, int n) { memset(a, n, (unsigned long)n); }\n")
        two = self.archive("two", "void one(char *a, int n);\nvoid two(char *a);\n"
                                  "void two(char *a) { one(a, 3); }\n")
        self.assertEqual(self.check(one, two)[0], 0)
        status, output = self.check(two)  # without the room that defines it, it is foreign
        self.assertEqual(status, 1)
        self.assertIn("libtwo.a(two.o): one", output)

    def test_a_clock_an_allocation_or_a_file_is_named_with_its_object(self):
        for call, symbol in (("time(0)", "time"), ("malloc(1)", "malloc"),
                             ('fopen("x", "r")', "fopen"), ('getenv("HOME")', "getenv")):
            library = self.archive("bad", "#include <stdio.h>\n#include <stdlib.h>\n"
                                   f"#include <time.h>\nlong bad(void) {{ return (long){call}; }}\n")
            status, output = self.check(library)
            self.assertEqual(status, 1, output)
            self.assertIn(f"libbad.a(bad.o): {symbol} is not in", output)

    def test_a_library_that_prints_or_exits_is_loud_and_one_that_allocates_is_not(self):
        head = "#include <stdio.h>\n#include <stdlib.h>\n"
        library = self.archive("calm", head + "void *f(void); void *f(void) { return malloc(1); }\n")
        self.assertEqual(run(ROOT / "tools/check_pure.sh", "--quiet", library)[0], 0)
        for call, symbol in (('printf("%d", n)', "printf"), ("exit(n)", "exit"),
                             ('fprintf(stderr, "%d", n)', "stderr"), ('getenv("X")', "getenv"),
                             ("srand((unsigned)n)", "srand")):
            library = self.archive("loud", head + f"void f(int n); void f(int n) {{ {call}; }}\n")
            status, output = run(ROOT / "tools/check_pure.sh", "--quiet", library)
            self.assertEqual(status, 1, output)
            self.assertIn(f"libloud.a(loud.o): {symbol} is not for a library", output)

    def test_no_archive_at_all_is_an_error_and_not_a_pass(self):
        self.assertEqual(self.check()[0], 2)
        self.assertEqual(self.check(self.tree / "none.a")[0], 2)


class Deps(unittest.TestCase):
    def test_the_groups_are_lists_of_packages_and_running_needs_no_test_tool(self):
        status, build = run(ROOT / "tools/deps.sh", "--list", "build")
        self.assertEqual(status, 0)
        self.assertIn("libjansson-dev", build.split())
        for package in run(ROOT / "tools/deps.sh", "--list", "test", "bench", "fuzz")[1].split():
            self.assertNotIn(package, build.split())

    def test_what_is_missing_is_named_with_the_command_where_it_cannot_be_installed(self):
        with tempfile.TemporaryDirectory() as folder:
            for name, body in (("dpkg-query", "echo installed gcc"), ("id", "echo 1000")):
                path = pathlib.Path(folder) / name
                path.write_text(f"#!/bin/sh\n{body}\n")
                path.chmod(0o755)
            done = subprocess.run(["/bin/sh", str(ROOT / "tools/deps.sh"), "build"], text=True,
                                  env={"PATH": folder}, capture_output=True, check=False)
        self.assertEqual(done.returncode, 1)
        self.assertIn("ninja-build", done.stdout)
        self.assertNotIn(" gcc ", done.stdout)
        self.assertIn("apt-get install --no-install-recommends", done.stderr)
        self.assertIn("libpcre2-dev", done.stderr)

    def test_a_group_that_is_not_there_is_an_error(self):
        status, output = run(ROOT / "tools/deps.sh", "everything")
        self.assertEqual(status, 2)
        self.assertIn("build test bench fuzz", output)


if __name__ == "__main__":
    unittest.main()
