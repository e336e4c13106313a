"""Files that h5py, scikit-learn and pandas write: each is read equal to what its maker reads, on 1, 2 and 3 ranks."""

import gzip
import os
import pathlib
import re
import subprocess
import unittest

import numpy as np

from command_line import PROGRAM
from source_files import SourceTest

try:
    import h5py
except ImportError:
    h5py = None
try:
    import sklearn.datasets
except ImportError:
    sklearn = None
try:
    import pandas
except ImportError:
    pandas = None

ROWS = 2500  # of few columns: more than two tiles, so that three ranks have rows


def reads_hdf5():
    page = subprocess.run([PROGRAM, "--version"], capture_output=True, text=True, check=False).stdout
    return not re.search(r"^HDF5 +none$", page, re.MULTILINE)


class SvmlightTest(SourceTest):
    def write(self, name, text):
        data = text.encode() if isinstance(text, str) else text
        self.path(name).write_bytes(gzip.compress(data) if name.endswith(".gz") else data)

    @unittest.skipUnless(sklearn, "without scikit-learn")
    def test_what_scikit_learn_writes(self):
        generator = np.random.default_rng(1)
        for name, rows, columns, density in (("a", ROWS, 7, 0.3), ("thin", ROWS, 1, 0.5), ("wide", 5, 4000, 0.1),
                                             ("one", 1, 1, 1), ("full", 300, 3, 1), ("few", 1200, 40, 0.01)):
            array = np.where(generator.random((rows, columns)) < density,
                             generator.standard_normal((rows, columns)) * 10.0**generator.integers(-300, 300, columns), 0)
            array[-1, -1] = 1.5
            targets = generator.standard_normal(rows)
            for zero_based in (True, False):
                for ending in ("svm", "svmlight", "libsvm.gz"):
                    file = f"{name}-{'zero' if zero_based else 'one'}.{ending}"
                    comment = "by a test" if ending == "svm" else None
                    opened = gzip.open if ending.endswith("gz") else open
                    with opened(self.path(file), "wb") as out:
                        sklearn.datasets.dump_svmlight_file(array, targets, out, zero_based=zero_based, comment=comment)
                    for part, base in (("", "auto"), (":zero-based", True), (":one-based", False)):
                        if base is False and zero_based and np.any(array[:, 0]):
                            continue  # index 0 is then no column
                        matrix, read = sklearn.datasets.load_svmlight_file(str(self.path(file)), zero_based=base)
                        self.holds(file + part, matrix.toarray())
                        if ending == "svm":
                            self.holds("T " + file + part, matrix.toarray().T)
                    self.holds(file + ":target", read)
        self.check_all()

    def test_spellings(self):
        self.write("a.svm", "# a comment\n\n1 qid:3 1:2 3:-.5 # behind\r\n  -1\t2:1e5  3:0\n\n+2.5\n# end\n0 3:7")
        self.holds("a.svm", [[2, 0, -.5], [0, 1e5, 0], [0, 0, 0], [0, 0, 7]])
        self.holds("a.svm:zero-based", [[0, 2, 0, -.5], [0, 0, 1e5, 0], [0, 0, 0, 0], [0, 0, 0, 7]])
        self.holds("a.svm:target", [1, -1, 2.5, 0])
        self.write("none.svm", "1\n2\n")
        self.holds("none.svm", [[0], [0]])
        self.write("long.svm", "1 " + " ".join(f"{j}:{j}" for j in range(400_000)))  # a line longer than a block
        self.holds("T long.svm", np.arange(400_000)[:, None])
        self.check_all()

    def test_what_is_refused(self):
        for name, text, *wanted in (
                ("empty", "# none\n", "no rows", "expected lines"), ("word", "1 1:2\nyes 1:2\n", "line 2", "found 'yes'"),
                ("labels", "1,2 1:2\n", "line 1", "several labels"), ("colon", "1 5\n", "line 1", "found '5'"),
                ("value", "1 1:2\n1 1:x 2:1\n", "line 2", "found '1:x'"), ("no-value", "1 1:\n", "line 1", "found '1:'"),
                ("huge", "1 1:1e999\n", "found '1:1e999'", "double has"), ("minus", "1 -1:2\n", "found '-1:2'"),
                ("fraction", "1 1.5:2\n", "found '1.5:2'"), ("large", "1 99999999999:1\n", "found '99999999999:1'"),
                ("order", "1 1:1\n1 3:1 2:1 4:1\n", "line 2", "found index 2 behind 3", "increase"),
                ("twice", "1 2:1 2:1\n", "found index 2 behind 2"), ("qid", "1 1:1 qid:2 3:1\n", "found 'qid:2'"),
                ("between", "1 1:1 junk 3:1\n", "found 'junk'"), ("last", "1 1:1 junk\n", "found 'junk'"),
                ("nan", "1 1:1\n1 2:nan\n", "row 1, column 1 is nan"), ("inf", "1 0:inf\n", "row 0, column 0 is inf"),
                ("binary", b"1 1:1\n\xff\xfe\n", "line 2"), ("blank", "1 1: 2\n", "found '1:'")):
            self.write(f"{name}.svm", text)
            self.refused(f"{name}.svm", f"{name}.svm", *wanted)
        self.write("a.svm", "1 0:1\nnan 1:2\n")
        self.refused("a.svm:one-based", "line 1", "found '0:1'", "from 1 on")
        self.refused("a.svm:target", "row 1 is nan")
        self.refused("a.svm:targets", "no 'targets'", ":target")
        self.refused("a.svm[0]", "a sparse matrix", ":target")
        self.refused("a.svm:target[0]", "fewer places")
        whole = gzip.compress(b"1 1:1\n" * 9000)
        self.path("cut.svm.gz").write_bytes(whole[:-9])
        self.refused("cut.svm.gz", "copy the file again")
        self.check_all()


@unittest.skipUnless(pandas, "without pandas")
class PandasTest(SourceTest):
    def test_tables(self):
        generator = np.random.default_rng(2)
        frame = pandas.DataFrame({"age": generator.integers(0, 99, ROWS), "long name": generator.standard_normal(ROWS),
                                  "x": generator.standard_normal(ROWS).astype("f4"), 'with, comma': generator.random(ROWS)})
        for name, options in (("a.csv", {}), ("a.tsv", {"sep": "\t"}), ("a.csv.gz", {}), ("bare.csv", {"header": False}),
                              ("windows.csv", {"lineterminator": "\r\n"}), ("digits.csv", {"float_format": "%.17g"}),
                              ("exponents.tsv.gz", {"sep": "\t", "float_format": "%.9e"})):
            columns = frame if name != "a.csv" else frame[["age", "long name", "x"]]
            columns = columns.drop(columns="with, comma", errors="ignore")
            columns.to_csv(self.path(name), index=False, **options)
            read = pandas.read_csv(self.path(name), sep=options.get("sep", ","), header=None if "header" in options else 0,
                                   float_precision="round_trip")
            self.holds(name, read.to_numpy(float))
        self.check_all()


class SafetensorsLibraryTest(SourceTest):
    def test_what_the_library_wrote(self):
        """Files that the package safetensors made once, and what it read from them: tests/data/safetensors/make.py."""
        directory = pathlib.Path(os.environ["ATTNREG_TEST_DATA"]) / "safetensors"
        for name in ("all", "one"):
            self.path(f"{name}.safetensors").write_bytes((directory / f"{name}.safetensors").read_bytes())
        with np.load(directory / "read.npz") as read:
            for name in read.files:
                array, source = read[name], f"all.safetensors:{name.replace('|', '/')}"
                if array.ndim in (1, 2) and array.size > 0:
                    self.holds(source, array)
                elif array.ndim > 2:
                    self.holds(source + "[1]" if array.ndim == 3 else source + "[1,2]", array[1] if array.ndim == 3 else array[1, 2])
                else:
                    self.refused(source, "all.safetensors", "found shape")
            self.holds("one.safetensors", read["vector"].reshape(8, 5))
        self.check_all()


@unittest.skipUnless(h5py and reads_hdf5(), "without HDF5")
class Hdf5Test(SourceTest):
    def test_types(self):
        generator = np.random.default_rng(3)
        with h5py.File(self.path("types.h5"), "w") as file:
            group = file.create_group("group/deep")
            for dtype in ("f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8"):
                for order in "<>" if dtype[1] != "1" else "|":
                    array = (100 * generator.random((ROWS, 3)) - (0 if dtype[0] == "u" else 50)).astype(order + dtype)
                    group[order + dtype] = array
                    self.holds(f"types.h5:/group/deep/{order}{dtype}", array)
            group["bool"] = generator.random((ROWS, 2)) < 0.5
            self.holds("types.h5:group/deep/bool", group["bool"][...])
            colours = h5py.enum_dtype({"RED": 0, "GREEN": 300}, "<i2")
            group.create_dataset("colours", data=np.array([0, 300, 0]), dtype=colours)
            self.holds("types.h5:group/deep/colours", [0, 300, 0])
            group["vector"] = generator.random(ROWS)
            self.holds("types.h5:/group/deep/vector", group["vector"][...])
            file["alias"] = h5py.SoftLink("/group/deep/vector")
            self.holds("types.h5:alias", group["vector"][...])
        self.check_all()

    def test_layouts(self):
        generator = np.random.default_rng(4)
        array = generator.integers(-99, 99, (ROWS, 6)).astype("f4")
        heads = generator.integers(-99, 99, (3, 2, 700, 5)).astype("f8")
        with h5py.File(self.path("a.h5"), "w") as file:
            for name, options in (("contiguous", {}), ("chunks", {"chunks": (64, 4)}), ("rows", {"chunks": (1, 6)}),
                                  ("gzip", {"chunks": (100, 6), "compression": "gzip"}),
                                  ("shuffled", {"chunks": True, "compression": "gzip", "shuffle": True}),
                                  ("sums", {"chunks": (333, 5), "fletcher32": True}),
                                  ("scaled", {"chunks": (100, 6), "scaleoffset": 0}),
                                  ("grows", {"chunks": (50, 6), "maxshape": (None, 6)})):
                file.create_dataset(name, data=array, **options)
                self.holds(f"a.h5:{name}", file[name][...])
                self.holds(f"T a.h5:{name}", file[name][...].T)
                file.create_dataset(f"heads/{name}", data=heads, chunks=(2, 1, 99, 5) if "chunks" in options else None)
                self.holds(f"a.h5:heads/{name}[2,1]", heads[2, 1])
                self.holds(f"a.h5:heads/{name}[0,1,699]", heads[0, 1, 699])
                self.holds(f"T a.h5:heads/{name}[1,0]", heads[1, 0].T)
            file.create_dataset("filled", (ROWS, 2), "f4", fillvalue=7)
            self.holds("a.h5:filled", file["filled"][...])
            file.create_dataset("compact", data=np.eye(3), dcpl=compact())
            self.holds("a.h5:compact", np.eye(3))
        with h5py.File(self.path("one.hdf5"), "w", userblock_size=512, libver="latest") as file:
            file["only"] = array
        self.holds("one.hdf5", array)
        self.path("other-name").write_bytes(self.path("a.h5").read_bytes())
        self.holds("other-name:chunks", array)
        for k in range(3):
            with h5py.File(self.path(f"shard.{k}.h5"), "w") as file:
                file["A"] = array[k * 800:(k + 1) * 800 if k < 2 else None]
        self.holds("shard.*.h5", array)
        self.check_all()

    def test_what_is_refused(self):
        with h5py.File(self.path("outer.h5"), "w") as file:
            file["A"] = np.eye(4)
        external = [(str(self.path("raw")), 0, 128)]
        self.path("raw").write_bytes(np.eye(4).tobytes())
        with h5py.File(self.path("a.h5"), "w") as file:
            file["keys"] = file["group/values"] = np.eye(4)
            file["complex"] = np.ones(3, "c16")
            file["table"] = np.zeros(3, [("x", "f8"), ("y", "i4")])
            file["text"] = "words"
            file["texts"] = ["a", "b"]
            file["lists"] = np.array([np.zeros(2), np.zeros(3)], h5py.vlen_dtype(float))
            file["long"] = np.zeros(3, np.longdouble)
            file["none"] = h5py.Empty("f8")
            file["scalar"] = 1.5
            file["cube"] = np.zeros((2, 3, 4))
            file["rows"] = np.zeros((0, 4))
            file["nan"] = np.array([[1, 2], [3, np.nan]])
            file["link"] = h5py.ExternalLink("outer.h5", "/A")
            file["chain"] = h5py.SoftLink("/link")
            file["nowhere"] = h5py.SoftLink("/absent")
            file["lzf"] = np.zeros(3)
            file.create_dataset("packed", data=np.eye(40), chunks=(10, 10), compression="lzf")
            file.create_dataset("outside", (4, 4), "f8", external=external)
            layout = h5py.VirtualLayout((4, 4), "f8")
            layout[...] = h5py.VirtualSource(str(self.path("outer.h5")), "A", (4, 4))
            file.create_virtual_dataset("virtual", layout)
            file.create_dataset("damaged", data=np.arange(9000.0), chunks=(9000,), compression="gzip", fletcher32=True)
            chunk = file["damaged"].id.get_chunk_info(0)
        data = bytearray(self.path("a.h5").read_bytes())
        data[chunk.byte_offset + chunk.size // 2] ^= 0x55
        self.path("a.h5").write_bytes(data)
        for name, *wanted in (("kyes", "no dataset 'kyes'", "found"), ("group", "no dataset 'group'", "/group/values"),
                              ("complex", "several fields", "expected", "f['A'][...]['r']"), ("table", "several fields"),
                              ("text", "texts", "astype"), ("texts", "texts"), ("lists", "lists of any length"),
                              ("long", "16 bytes", "IEEE"), ("none", "is empty"), ("scalar", "found shape ()"),
                              ("cube", "(2, 3, 4)", "expected a matrix"), ("rows", "at least one row"),
                              ("nan", "row 1, column 1 is nan"), ("link", "external link", "name the other file"),
                              ("chain", "external link"), ("nowhere", "no dataset 'nowhere'"),
                              ("packed", "filter 32000", "lzf", "h5repack"), ("outside", "other files", "g['A']"),
                              ("virtual", "virtual", "g['A']"), ("damaged", "cannot read element", "copy it again")):
            self.refused(f"a.h5:{name}", "a.h5", *wanted)
        self.refused("a.h5", "datasets, expected the name of one", "/keys")
        self.refused("a.h5:keys[9]", "no part 9 of 4")
        whole = self.path("outer.h5").read_bytes()
        for size in (0, 8, 100, len(whole) - 1):
            self.path(f"cut{size}.h5").write_bytes(whole[:size])
            self.refused(f"cut{size}.h5:A", f"cut{size}.h5", "expected a whole file")
        self.path("text.h5").write_text("1,2,3\n" * 100)
        self.refused("text.h5", "text.h5", "expected a whole file")
        with h5py.File(self.path("zeros.h5"), "w") as file:
            file.create_dataset("A", (2**18, 2**14), "f4", chunks=(2**9, 2**14), compression="gzip")
        self.refused("zeros.h5", "grows to", "--trust-input")
        self.check_all()

    def test_unknown_filter(self):
        with h5py.File(self.path("a.h5"), "w") as file:
            properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
            properties.set_chunk((4, 4))
            properties.set_filter(32015, h5py.h5z.FLAG_OPTIONAL, ())
            h5py.h5d.create(file.id, b"A", h5py.h5t.IEEE_F64LE, h5py.h5s.create_simple((4, 4)), properties)
        self.refused("a.h5", "filter 32015", "expected gzip")
        self.check_all()


def compact():
    properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    properties.set_layout(h5py.h5d.COMPACT)
    return properties


@unittest.skipIf(reads_hdf5(), "with HDF5")
class WithoutHdf5Test(SourceTest):
    def test_is_refused(self):
        self.path("a.h5").write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(100))
        self.path("b").write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(100))
        for name in ("a.h5", "a.h5:A", "b"):
            self.refused(name, "built without the library", "numpy.save")
        self.check_all()


if __name__ == "__main__":
    unittest.main()
