"""The tree keeps the rules of rooms.py, and rooms.py sees every one of them broken."""

import shutil
import tempfile
import unittest
from pathlib import Path

import rooms

ROOT = Path(__file__).resolve().parents[2]


class TheTree(unittest.TestCase):
    def test_keeps_the_rules(self):
        found = rooms.faults(ROOT)
        self.assertFalse(found, "\n" + "\n".join(found))


class PlantedFault(unittest.TestCase):
    """Each test breaks one rule in a copy of the tree."""

    def setUp(self):
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.root = Path(directory.name)
        for name in ("src", "include", "tests/structure"):
            shutil.copytree(ROOT / name, self.root / name, ignore=shutil.ignore_patterns("__pycache__"))
        for name in ("docs", "bench", "tests/unit"):
            (self.root / name).mkdir()
        for name in ("architecture.md", "notation.md"):
            shutil.copy(ROOT / "docs" / name, self.root / "docs")

    def edit(self, path, old, new):
        file = self.root / path
        text = file.read_text()
        self.assertIn(old, text)
        file.write_text(text.replace(old, new, 1))

    def plant(self, path, line):
        """Adds a line at the end; returns its number."""
        file = self.root / path
        file.write_text(file.read_text() + line + "\n")
        return len(file.read_text().splitlines())

    def plant_file(self, path, text):
        (self.root / path).parent.mkdir(parents=True, exist_ok=True)
        (self.root / path).write_text(text)

    def expect(self, *beginnings):
        """Exactly these faults."""
        found = rooms.faults(self.root)
        self.assertEqual(len(found), len(beginnings), "\n" + "\n".join(found))
        for fault, beginning in zip(found, beginnings):
            self.assertEqual(fault[:len(beginning)], beginning)

    def test_the_copy_has_none(self):
        self.expect()

    def test_include_upward(self):
        line = self.plant("src/kernels/row_kernels.cpp", '#include "rows/tile.hpp"')
        upward = f"src/kernels/row_kernels.cpp:{line}: include upward: kernels is below rows, the room of rows/tile"
        found = rooms.faults(self.root)
        self.assertEqual(found[0][:len(upward)], upward)
        self.assertTrue(found[1:])  # the kernels are below tile: this closes loops as well
        for fault in found[1:]:
            self.assertIn("loop of includes", fault)

    def test_include_upward_in_angle_brackets(self):
        line = self.plant("src/losses/softmax_loss.cpp", "#include <attnreg/regression.hpp>")
        self.expect(f"src/losses/softmax_loss.cpp:{line}: include upward: losses is below regression")

    def test_include_upward_of_a_generated_header(self):
        line = self.plant("src/app/options/solver_options.cpp", '#include "build_info.hpp"')
        self.expect(f"src/app/options/solver_options.cpp:{line}: include upward: app/options is below app/report")

    def test_loop_of_header_and_source(self):
        """knot.hpp includes nothing: only as a unit with its source it closes the loop."""
        self.edit("src/CMakeLists.txt", "SOURCES exact_sum.cpp", "SOURCES knot.cpp exact_sum.cpp")
        self.plant_file("src/numbers/knot.hpp", "#pragma once\n")
        self.plant_file("src/numbers/knot.cpp", '\n#include "numbers/exact_sum.hpp"\n')
        line = self.plant("src/numbers/exact_sum.hpp", '#include "numbers/knot.hpp"')
        self.expect(f"src/numbers/exact_sum.hpp:{line}: loop of includes: exact_sum -> knot -> exact_sum")

    def test_loop_of_public_headers(self):
        line = self.plant("include/attnreg/communicator.hpp", '#include "attnreg/row_partition.hpp"')
        self.expect(f"include/attnreg/communicator.hpp:{line}: loop of includes: communicator -> row_partition -> comm")

    def test_file_that_no_room_lists(self):
        self.plant_file("src/rows/left_over.cpp", "")
        self.expect("src/rows/left_over.cpp:1: no room of src/CMakeLists.txt lists")

    def test_public_header_that_no_room_lists(self):
        self.edit("src/CMakeLists.txt", " PUBLIC linear_solver.hpp", "")
        self.expect("include/attnreg/linear_solver.hpp:1: no room of src/CMakeLists.txt has")

    def test_directory_that_is_no_room(self):
        self.plant_file("src/utils/rest.hpp", "")
        self.expect("src/utils/rest.hpp:1: no room of src/CMakeLists.txt has")

    def test_source_outside_of_rooms(self):
        self.plant_file("src/first.cpp", "")
        self.plant_file("src/app/second.hpp", "")
        self.expect("src/app/second.hpp:1: no room", "src/first.cpp:1: no room")

    def test_listed_file_that_is_missing(self):
        self.edit("src/CMakeLists.txt", "SOURCES exact_sum.cpp", "SOURCES absent.cpp exact_sum.cpp")
        line = (self.root / "src/CMakeLists.txt").read_text().split("absent")[0].count("\n") + 1
        self.expect(f"src/CMakeLists.txt:{line}: room numbers lists src/numbers/absent.cpp, which is not there")

    def test_name_in_two_rooms(self):
        self.plant_file("src/files/tile.hpp", "")
        self.expect("src/rows/tile.cpp:1: the name tile is taken by src/files/tile.hpp")

    def test_mpi_call(self):
        line = self.plant("src/rows/tile.cpp", "int size(MPI_Comm c) { int n; MPI_Comm_size(c, &n); return n; }")
        self.expect(f"src/rows/tile.cpp:{line}: MPI_Comm outside ranks/, algebra/scalapack* and the mains")

    def test_mpi_header_and_blacs(self):
        header = self.plant("src/newton/newton.cpp", "#include <mpi.h>")
        call = self.plant("src/newton/newton.cpp", "int handle() { return Csys2blacs_handle(0); }")
        self.expect(f"src/newton/newton.cpp:{header}: <mpi.h> outside", f"src/newton/newton.cpp:{call}: Csys2blacs_h")

    def test_mpi_in_comments_and_texts_is_no_call(self):
        self.plant("src/newton/newton.cpp", '// MPI_Abort\nconst char* text = "MPI_Abort";')
        self.expect()

    def test_public_header_that_includes_a_private_one(self):
        line = self.plant("include/attnreg/regression.hpp", '#include "rows/row_passes.hpp"')
        self.expect(f"include/attnreg/regression.hpp:{line}: a public header includes rows/row_passes.hpp, which is")

    def test_include_of_nothing(self):
        line = self.plant("src/rows/tile.cpp", '#include "tile_size.hpp"')
        self.expect(f"src/rows/tile.cpp:{line}: tile_size.hpp is no file of this tree")

    def test_peer_that_includes_a_room(self):
        self.plant_file("bench/peers/exact_newton/step.cpp", '#include "newton/minimise.hpp"\n')
        self.expect("bench/peers/exact_newton/step.cpp:1: newton/minimise.hpp is no file that this one can include")

    def test_too_many_public_headers(self):
        have = len(list((self.root / "include/attnreg").iterdir()))
        for k in range(rooms.MOST_PUBLIC_HEADERS + 1 - have):
            self.plant_file(f"include/attnreg/zz{k}.hpp", "")
            self.edit("src/CMakeLists.txt", "PUBLIC error.hpp", f"PUBLIC error.hpp zz{k}.hpp")
        self.expect("include/attnreg/zz")

    def test_long_files(self):
        self.plant_file("bench/long.py", "\n" * 451)
        self.plant_file("tests/unit/long.cpp", "\n" * 451)
        self.plant_file("tests/unit/not_long.cpp", "\n" * 450)
        self.expect("tests/unit/long.cpp:451: 451 lines, at most 450", "bench/long.py:451: ")

    def test_rooms_in_another_order_in_the_documentation(self):
        self.edit("docs/architecture.md", "**ranks/**", "**numbers/**")
        self.expect("docs/architecture.md:")
        self.assertIn("numbers where src/CMakeLists.txt has ranks", rooms.faults(self.root)[0])

    def test_room_that_the_documentation_leaves_out(self):
        self.edit("docs/architecture.md", "**app/commands/**", "app/commands/")
        self.expect("docs/architecture.md:")
        self.assertIn("the end where src/CMakeLists.txt has app/commands", rooms.faults(self.root)[0])

    def test_documents_that_name_what_is_gone(self):
        file = self.plant("docs/architecture.md", "The loop is in src/rows/loops.cpp.")
        name = self.plant("docs/notation.md", "| z | logits | `logits_of_old` |")
        self.expect(f"docs/architecture.md:{file}: src/rows/loops.cpp is not there",
                    f"docs/notation.md:{name}: no source has the name logits_of_old")


if __name__ == "__main__":
    unittest.main()
