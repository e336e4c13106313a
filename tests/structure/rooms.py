"""The rules of the source tree: which file lies in which room, and who may include whom.

The rooms, their order (bottom up) and their files stand in src/CMakeLists.txt. `faults(root)` reads them and all
sources, and returns one message for each broken rule, beginning with file and line. By hand:

    python3 tests/structure/rooms.py [ROOT]
"""

import re
import sys
from dataclasses import dataclass, field
from pathlib import Path

LONGEST_FILE = 450  # lines
MOST_PUBLIC_HEADERS = 14
LINES_COUNTED_IN = ("src", "include", "tests", "bench", "python")
LIBRARIES = ("hwy/",)  # quoted includes that are no files of this tree

INCLUDE = re.compile(r'\s*#\s*include\s*[<"]([^>"]+)[>"]')
MPI = re.compile(r"<mpi\.h>|\bMPI_\w+|\bC\w*blacs_\w+")
COMMENT_OR_TEXT = re.compile(r'//.*|"(?:\\.|[^"\\])*"')


@dataclass
class Room:
    name: str
    line: int  # of src/CMakeLists.txt
    headers: list = field(default_factory=list)  # public ones: attnreg/NAME.hpp
    sources: list = field(default_factory=list)  # ROOM/NAME.cpp


def read_rooms(root):
    """The rooms in their order, from the calls of attnreg_room in src/CMakeLists.txt."""
    text = (root / "src/CMakeLists.txt").read_text()
    rooms = []
    for call in re.finditer(r"^attnreg_room\(([^)]*)\)", text, re.MULTILINE):
        name, *words = call[1].split()
        room = Room(name, text.count("\n", 0, call.start()) + 1)
        files = None
        for word in words:
            if word in ("PUBLIC", "SOURCES"):
                files = room.headers if word == "PUBLIC" else room.sources
            else:
                files.append(f"attnreg/{word}" if files is room.headers else f"{name}/{word}")
        rooms.append(room)
    return rooms


def path_of(name):
    """Where the file lies that is included as `name`."""
    return ("include/" if name.startswith("attnreg/") else "src/") + name


class Tree:
    """All sources, by the names under which they are included, and their rooms."""

    def __init__(self, root):
        self.root = root
        self.rooms = read_rooms(root)
        self.order = {room.name: k for k, room in enumerate(self.rooms)}
        self.lines = {}
        for top in ("src", "include"):
            for path in sorted((root / top).rglob("*.[ch]pp")):
                self.lines[path.relative_to(root / top).as_posix()] = path.read_text().splitlines()
        templates = (root / "src").rglob("*.hpp.in")  # CMake makes headers of them that are included by name alone
        self.generated = {path.stem: path.parent.relative_to(root / "src").as_posix() for path in templates}
        self.public_rooms = {header: room.name for room in self.rooms for header in room.headers}

    def room_of(self, name):
        if name in self.generated:
            return self.generated[name]
        return self.public_rooms.get(name) if name.startswith("attnreg/") else str(Path(name).parent)

    def includes(self, name):
        """Pairs of line and included name, of files of this tree only."""
        for number, line in enumerate(self.lines[name], 1):
            found = INCLUDE.match(line)
            if found and (found[1] in self.lines or found[1] in self.generated):
                yield number, found[1]


def misplaced_files(tree):
    """Every file in one room, every file of a room there, no name in two rooms."""
    rooms = {}
    for name in tree.lines:
        room = tree.room_of(name)
        if room not in tree.order:
            yield f"{path_of(name)}:1: no room of src/CMakeLists.txt has this file"
            continue
        rooms.setdefault(Path(name).stem, {}).setdefault(room, name)
    listed = {name: room for room in tree.rooms for name in room.headers + room.sources}
    for name, room in listed.items():
        if name not in tree.lines:
            yield f"src/CMakeLists.txt:{room.line}: room {room.name} lists {path_of(name)}, which is not there"
    for name in tree.lines:
        if name.endswith(".cpp") and name not in listed and tree.room_of(name) in tree.order:
            yield f"{path_of(name)}:1: no room of src/CMakeLists.txt lists this source"
    for stem, names in rooms.items():
        for name in list(names.values())[1:]:
            yield f"{path_of(name)}:1: the name {stem} is taken by {path_of(next(iter(names.values())))}"


def wrong_includes(tree):
    """A file includes its own room and rooms below; public headers include public ones; no includes of unknown files."""
    for name, lines in tree.lines.items():
        place = tree.order.get(tree.room_of(name))
        for number, included in tree.includes(name):
            above = tree.order.get(tree.room_of(included))
            if place is not None and above is not None and above > place:
                yield (f"{path_of(name)}:{number}: include upward: {tree.room_of(name)} is below "
                       f"{tree.room_of(included)}, the room of {included}")
            if name.startswith("attnreg/") and not included.startswith("attnreg/"):
                yield f"{path_of(name)}:{number}: a public header includes {included}, which is private"
        for number, line in enumerate(lines, 1):
            found = re.match(r'\s*#\s*include\s*"([^"]+)"', line)
            if found and not found[1].startswith(LIBRARIES) and found[1] not in {**tree.lines, **tree.generated}:
                yield f"{path_of(name)}:{number}: {found[1]} is no file of this tree; a library is included with <>"


def includes_outside_of_rooms(tree):
    """What tests, benchmarks and the Python module include is beside them, in tests/, or in a room; the peers, which are
    compiled alone, have only what is beside them."""
    for top in ("tests", "bench", "python"):
        for path in sorted((tree.root / top).rglob("*.[ch]pp")):
            is_peer = (tree.root / "bench/peers") in path.parents
            for number, line in enumerate(path.read_text().splitlines(), 1):
                found = re.match(r'\s*#\s*include\s*"([^"]+)"', line)
                if not found or (path.parent / found[1]).is_file() or found[1].startswith(LIBRARIES):
                    continue
                if is_peer or not ((tree.root / "tests" / found[1]).is_file() or found[1] in {**tree.lines, **tree.generated}):
                    yield f"{path.relative_to(tree.root)}:{number}: {found[1]} is no file that this one can include"


def loops(tree):
    """No loop between units: the header and the source of one name. Loops between rooms would need an upward arrow."""
    arrows = {}  # unit -> unit it includes -> the place of the include
    for name in tree.lines:
        unit = Path(name).stem
        for number, included in tree.includes(name):
            if Path(included).stem != unit:
                arrows.setdefault(unit, {}).setdefault(Path(included).stem, f"{path_of(name)}:{number}")
    done = set()
    for start in sorted(arrows):
        way = [start]
        ways_on = [iter(sorted(arrows[start]))]
        while ways_on and start not in done:
            unit = next(ways_on[-1], None)
            if unit is None:
                ways_on.pop()
                done.add(way.pop())
            elif unit in way:
                loop = way[way.index(unit):] + [unit]
                yield f"{arrows[loop[0]][loop[1]]}: loop of includes: {' -> '.join(loop)}"
            elif unit not in done:
                way.append(unit)
                ways_on.append(iter(sorted(arrows.get(unit, {}))))


def mpi_calls(tree):
    """MPI and BLACS in ranks/, in algebra/scalapack* and in the mains only; comments and texts may name them."""
    for name, lines in tree.lines.items():
        if tree.room_of(name) == "ranks" or name.startswith("algebra/scalapack") or Path(name).stem == "main":
            continue
        for number, line in enumerate(lines, 1):
            found = MPI.search(COMMENT_OR_TEXT.sub("", line))
            if found:
                yield f"{path_of(name)}:{number}: {found[0]} outside ranks/, algebra/scalapack* and the mains"


def sizes(tree):
    """Files that one can read at a sitting, and few public headers."""
    headers = [name for name in tree.lines if name.startswith("attnreg/")]
    for name in headers[MOST_PUBLIC_HEADERS:]:
        yield f"{path_of(name)}:1: public header number {len(headers)}; at most {MOST_PUBLIC_HEADERS}"
    for top in LINES_COUNTED_IN:
        for path in sorted((tree.root / top).rglob("*")):
            if path.suffix in (".cpp", ".hpp", ".py", ".sh"):
                count = len(path.read_text().splitlines())
                if count > LONGEST_FILE:
                    yield f"{path.relative_to(tree.root)}:{LONGEST_FILE + 1}: {count} lines, at most {LONGEST_FILE}"


def architecture(tree):
    """docs/architecture.md has a paragraph for each room, **room/**, in the same order."""
    lines = (tree.root / "docs/architecture.md").read_text().splitlines()
    told = [(number, found[1]) for number, line in enumerate(lines, 1) if (found := re.match(r"\*\*([\w/]+)/\*\*", line))]
    rooms = [room.name for room in tree.rooms]
    for k in range(max(len(told), len(rooms))):
        number, name = told[k] if k < len(told) else (len(lines), "the end")
        wanted = rooms[k] if k < len(rooms) else "the end"
        if name != wanted:
            yield f"docs/architecture.md:{number}: {name} where src/CMakeLists.txt has {wanted}"
            return


def names_in_documents(tree):
    """The documents name files that are there, and docs/notation.md names that the sources have."""
    for path in sorted([*tree.root.glob("[CR]*.md"), *tree.root.glob("docs/*.md")]):
        for number, line in enumerate(path.read_text().splitlines(), 1):
            for name in re.findall(r"(?<![\w/])(?:\.\./)?((?:src|include|tests)/[\w/.-]*\w)", line):
                if not (tree.root / name).exists():
                    yield f"{path.relative_to(tree.root)}:{number}: {name} is not there"
    words = {word for lines in tree.lines.values() for line in lines for word in re.findall(r"\w+", line)}
    for number, line in enumerate((tree.root / "docs/notation.md").read_text().splitlines(), 1):
        for code in re.findall(r"`([^`]+)`", line) if line.startswith("|") else ():
            for word in re.findall(r"[A-Za-z_]\w+", code):
                if word not in words and not (tree.root / "src" / word).exists():
                    yield f"docs/notation.md:{number}: no source has the name {word}"


def faults(root):
    tree = Tree(Path(root))
    rules = (misplaced_files, wrong_includes, includes_outside_of_rooms, loops, mpi_calls, sizes, architecture, names_in_documents)
    return [fault for rule in rules for fault in rule(tree)]


if __name__ == "__main__":
    found = faults(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).resolve().parents[2])
    print("\n".join(found))
    sys.exit(1 if found else 0)
