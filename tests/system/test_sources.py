"""Matrices as NumPy, SciPy and others write them: each is read equal to what its maker reads, on 1, 2 and 3 ranks."""

import json
import unittest
import zipfile

import numpy as np

from command_line import CommandLineTest, run
from source_files import SourceTest, bfloat16, write_safetensors

try:
    import scipy.sparse
except ImportError:
    scipy = None

TYPES = ("f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "b1")
ROWS = 2500  # of few columns: more than two tiles, so that three ranks have rows


def numbers(dtype, shape, seed=1):
    """With the extremes of the type, as far as double has them."""
    generator = np.random.default_rng(seed)
    dtype = np.dtype(dtype)
    if dtype.kind == "f":
        array = generator.standard_normal(shape).astype(dtype)
        array.flat[:2] = np.finfo(dtype).max, -np.finfo(dtype).tiny
    elif dtype.kind == "b":
        array = generator.random(shape) < 0.5
    else:
        least = max(np.iinfo(dtype).min, -2**53)
        most = min(np.iinfo(dtype).max, 2**53)
        array = generator.integers(least, most, shape, dtype=dtype.newbyteorder("="), endpoint=True).astype(dtype)
        array.flat[:2] = least, most
    return array


class NumpyTest(SourceTest):
    def test_types_and_orders(self):
        for dtype in TYPES:
            for order in "<>" if dtype[1] != "1" else "|":
                array = numbers(order + dtype, (ROWS, 3))
                for name, stored in ((f"C{order}{dtype}", array), (f"F{order}{dtype}", np.asfortranarray(array))):
                    np.save(self.path(f"{name}.npy"), stored)
                    self.holds(f"{name}.npy", np.load(self.path(f"{name}.npy")))
                np.save(self.path(f"v{order}{dtype}.npy"), array[:, 1])
                self.holds(f"v{order}{dtype}.npy", array[:, 1])
        bits, array = bfloat16(numbers("f4", (ROWS, 3)))
        np.save(self.path("bfloat16.npy"), bits.view("V2"))  # as ml_dtypes writes it
        self.holds("bfloat16.npy", array)
        self.holds("T bfloat16.npy", array.T)
        self.holds("T F>i4.npy", np.load(self.path("F>i4.npy")).T)
        self.holds("T C<u2.npy", np.load(self.path("C<u2.npy")).T)
        self.check_all()

    def test_parts_of_arrays(self):
        for dtype in ("<f4", ">f8", "<f2", "|i1", ">u2"):
            array = numbers(dtype, (2, 3, ROWS // 2, 2))
            for order, stored in (("C", array), ("F", np.asfortranarray(array))):
                name = f"{order}{dtype}.npy"
                np.save(self.path(name), stored)
                np.save(self.path("3" + name), np.asarray(stored[1], order=order))
                for places in ((0, 0), (1, 2), (1, 0)):
                    self.holds(f"{name}[{places[0]},{places[1]}]", array[places])
                self.holds(f"{name}[1,1,7]", array[1, 1, 7])
                self.holds(f"3{name}[2]", array[1, 2])
                self.holds(f"T 3{name}[2]", array[1, 2].T)
                self.holds(f"3{name}[2,1249]", array[1, 2, 1249])
        np.save(self.path("is[1].npy"), np.ones((3, 2)))  # a name comes before a part
        self.holds("is[1].npy", np.ones((3, 2)))
        self.check_all()

    def test_archives(self):
        arrays = {"keys": numbers("<f4", (ROWS, 3)), "layer/values": numbers(">i2", (ROWS,)),
                  "heads": numbers("<f2", (2, ROWS, 2)), "columns": np.asfortranarray(numbers("<f8", (40_000, 20)))}
        for save, name in ((np.savez, "stored"), (np.savez_compressed, "deflated")):
            save(self.path(f"{name}.npz"), **arrays)
            for key in ("keys", "layer/values", "columns"):
                self.holds(f"{name}.npz:{key}", np.load(self.path(f"{name}.npz"))[key])
            self.holds(f"{name}.npz:heads[1]", arrays["heads"][1])
            self.holds(f"T {name}.npz:keys", arrays["keys"].T)
            save(self.path(f"{name}-one.npz"), arrays["keys"])
            self.holds(f"{name}-one.npz", arrays["keys"])
            self.path(f"{name}-other-name").write_bytes(self.path(f"{name}.npz").read_bytes())
            self.holds(f"{name}-other-name:keys", arrays["keys"])
        np.savez(self.path("a:b.npz"), c=np.eye(3))
        self.holds("a:b.npz:c", np.eye(3))
        self.check_all()


@unittest.skipUnless(scipy, "without SciPy")
class SciPyTest(SourceTest):
    def test_formats(self):
        for dtype in ("f4", "f8", "i1", "i8", "u2", "b1"):
            dense = np.where(np.random.default_rng(2).random((2400, 6)) < 0.2, numbers(dtype, (2400, 6)), 0).astype(dtype)
            dense[100:700] = 0  # empty rows
            for kind in ("csr", "csc", "coo", "bsr", "dia"):
                for compressed in (False, True):
                    matrix = scipy.sparse.csr_matrix(dense)
                    matrix = matrix.tobsr((4, 3)) if kind == "bsr" else matrix.asformat(kind)
                    name = f"{kind}-{dtype}-{compressed}.npz"
                    scipy.sparse.save_npz(self.path(name), matrix, compressed)
                    self.holds(name, scipy.sparse.load_npz(self.path(name)).toarray())
                    self.holds(f"T {name}", dense.T)
        self.check_all()

    def test_duplicates_and_odd_shapes(self):
        generator = np.random.default_rng(3)
        rows, columns = generator.integers(0, 50, 9000), generator.integers(0, 7, 9000)
        matrix = scipy.sparse.coo_matrix((generator.integers(-9, 9, 9000).astype(float), (rows, columns)), (50, 7))
        scipy.sparse.save_npz(self.path("coo.npz"), matrix)
        self.holds("coo.npz", matrix.toarray())
        self.holds("T coo.npz", matrix.toarray().T)
        for shape in ((5, 3000), (3000, 5), (1, 1), (4, 4)):
            data = generator.integers(1, 9, (7, min(shape) + 3)).astype(float)
            diagonals = scipy.sparse.dia_matrix((data, [-3, -2, -1, 0, 1, 3, 2]), shape)
            for name, one in (("dia", diagonals), ("bsr", diagonals.tobsr((1, shape[1])))):
                name = f"{name}-{shape[0]}-{shape[1]}.npz"
                scipy.sparse.save_npz(self.path(name), one)
                self.holds(name, diagonals.toarray())
                self.holds(f"T {name}", diagonals.toarray().T)
        empty = scipy.sparse.coo_matrix((9, 4))
        for kind in ("csr", "csc", "coo", "dia", "bsr"):
            scipy.sparse.save_npz(self.path(f"empty-{kind}.npz"), empty.asformat(kind))
            self.holds(f"empty-{kind}.npz", np.zeros((9, 4)))
        self.check_all()


class SafetensorsTest(SourceTest):
    def test_types(self):
        tensors = {f"layer.{dtype}": numbers("<" + dtype, (ROWS, 3)) for dtype in TYPES}
        bits, array = bfloat16(numbers("f4", (2, ROWS, 3)))
        write_safetensors(self.path("model.safetensors"), {**tensors, "layer.bf16": ("BF16", bits), "a:b/c": ("F64", np.eye(4)),
                                                           "scalar": np.array(1.5), "none": np.zeros((0, 3)),
                                                           "vector": tensors["layer.i2"][:, 0]}, {"format": "pt"})
        for name, tensor in tensors.items():
            self.holds(f"model.safetensors:{name}", tensor)
        self.holds("model.safetensors:layer.bf16[1]", array[1])
        self.holds("T model.safetensors:layer.bf16[0]", array[0].T)
        self.holds("model.safetensors:a:b/c", np.eye(4))
        self.holds("model.safetensors:vector", tensors["layer.i2"][:, 0])
        write_safetensors(self.path("one"), {"only": np.eye(3)})  # whatever the name, by its contents
        self.holds("one", np.eye(3))
        self.check_all()


class ShardsTest(SourceTest):
    def test_rows_in_several_files(self):
        array = numbers("<f4", (ROWS, 3))
        ends = [0, 1, 1, 700, 701, 1024, 1500, 1501, 2000, 2100, 2200, ROWS]  # more than 10: 2 is before 10
        for k in range(len(ends) - 1):
            part = array[ends[k]:ends[k + 1]]
            np.save(self.path(f"A.{k:05d}.npy"), np.asfortranarray(part) if k % 2 else part)
            np.save(self.path(f"B-{k + 3}.npy"), part[:, 0].astype(">f4"))
        self.holds("A.%05d.npy", array)
        self.holds("A.*.npy", array)
        self.holds("B-%d.npy", array[:, 0])
        self.holds("B-*.npy", array[:, 0])
        self.holds("T A.*.npy", array.T)
        np.save(self.path("C.%05d.npy"), np.eye(2))  # a name comes before a pattern
        self.holds("C.%05d.npy", np.eye(2))
        self.check_all()


class ConvertTest(CommandLineTest):
    def convert(self, *arguments, ranks=0):
        self.assert_code(0, run("convert", *arguments, ranks=ranks))

    def test_there_and_back(self):
        """Through every format that is written, on any number of ranks, without a difference."""
        array = np.where(np.random.default_rng(4).random((ROWS, 5)) < 0.3, numbers("f4", (ROWS, 5)), 0).astype("<f4")
        array[:2] = 0
        np.save(self.directory / "A.npy", array)
        place = lambda name: self.directory / name
        chain = ["A.npy", "B.npz:rows", "C.%03d.npy", "D.npz", "E.npy"]
        for ranks in (1, 2, 3):
            for before, after in zip(chain, chain[1:]):
                options = ["--sparse"] if after == "D.npz" else ["--shards", 7] if "%" in after else []
                self.convert(place(before), place(after), "--force", *options, ranks=ranks)
            found = np.load(place("E.npy"))
            self.assertEqual(np.dtype("<f4"), found.dtype)
            np.testing.assert_array_equal(array, found)
            np.testing.assert_array_equal(array, np.load(place("B.npz"))["rows"])
            shards = [np.load(place(f"C.{k:03d}.npy")) for k in range(7)]
            np.testing.assert_array_equal(array, np.concatenate(shards))
            self.assertLessEqual(max(map(len, shards)) - min(map(len, shards)), 1)
            if scipy:
                np.testing.assert_array_equal(array, scipy.sparse.load_npz(place("D.npz")).toarray())
            with zipfile.ZipFile(place("B.npz")) as archive:
                self.assertIsNone(archive.testzip())

    def test_types_and_values(self):
        """Nothing is rounded unless it is asked for, and values that are not finite stay."""
        place = lambda name: self.directory / name
        array = numbers("<i4", (30, 2))
        np.save(place("A.npy"), array)
        self.convert(place("A.npy"), place("B.npy"))
        np.testing.assert_array_equal(array.astype(float), np.load(place("B.npy")))
        np.save(place("C.npy"), np.array([[1, np.nan], [-np.inf, 0.1]]))
        self.convert(place("C.npy"), place("D.npy"), "--dtype", "float32", ranks=2)
        np.testing.assert_array_equal(np.load(place("C.npy")).astype("<f4"), np.load(place("D.npy")))
        np.save(place("v.npy"), np.arange(9))
        self.convert(place("v.npy"), place("w.npz"))
        np.testing.assert_array_equal(np.arange(9), np.load(place("w.npz"))["arr_0"])
        np.save(place("E.npy"), np.array([[0, 1], [1e300, 2]]))
        self.assert_error(run("convert", place("E.npy"), place("F.npy"), "--dtype", "float32", ranks=2), 3, "row 1, column 0",
                          "float32")
        self.assertFalse(place("F.npy").exists())

    def test_arrays_without_values(self):
        place = lambda name: self.directory / name
        for shape in ((0,), (0, 0), (0, 3), (30, 0), (10**15, 0)):
            np.save(place("A.npy"), np.empty(shape))
            for ranks in (0, 3):
                for name in ("B.npy", "B.npz", "C.%d.npy"):
                    shards = ("--shards", 2) if "%" in name else ()
                    self.convert(place("A.npy"), place(name), "--force", *shards, ranks=ranks)
                for name in ("B.npy", "B.npz"):
                    found = np.load(place(name))
                    self.assertEqual(shape, (found["arr_0"] if name == "B.npz" else found).shape)
                shards = [np.load(file) for file in sorted(self.directory.glob("C.*.npy"))]
                self.assertEqual(shape, (sum(map(len, shards)), *shards[0].shape[1:]))
                for file in self.directory.glob("C.*.npy"):
                    file.unlink()

    def test_refusals(self):
        place = lambda name: self.directory / name
        np.save(place("A.npy"), np.ones((30, 2)))
        np.save(place("N.npy"), np.ones((3, 2, 2)))
        for code, texts, arguments in (
                (2, ("ends with .npy or .npz",), ("A.npy", "B.txt")),
                (2, ("%05d in place of '*'",), ("A.npy", "B.*.npy")),
                (2, ("--shards needs",), ("A.npy", "B.npy", "--shards", 3)),
                (2, ("--sparse",), ("A.npy", "B.npy", "--sparse")),
                (3, ("(3, 2, 2)", "IN[3]"), ("N.npy", "B.npy")),
                (6, ("A.npy", "input"), ("A.npy", "A.npy", "--force")),
                (6, ("N.npy", "exists"), ("A.npy", "N.npy"))):
            self.assert_error(run("convert", *(place(a) if isinstance(a, str) and a[0] != "-" else a for a in arguments)),
                              code, *texts)
        self.convert(place("A.npy"), place("B.%d.npy"), "--shards", 5)
        self.assert_error(run("convert", place("A.npy"), place("B.%d.npy"), "--shards", 3, "--force"), 6, "B.3.npy",
                          "remove it")


class CommandsTest(CommandLineTest):
    def test_every_matrix_argument(self):
        """One regression, and one attention matrix, from files of several kinds in all places."""
        A, b, x = self.write_problem(rows=400)
        place = lambda name: self.directory / name
        np.savez(place("data.npz"), A=A, b=b, x=np.stack([0 * x, x]))
        write_safetensors(place("data.safetensors"), {"w": np.full(400, 1e-3), "B": np.stack([b, b[::-1]], 1)})
        expected = run("evaluate", place("A.npy"), place("b.npy"), place("x.npy"), "--weight", "1e-3", "--json")
        found = run("evaluate", place("data.npz:A"), place("data.npz:b"), place("data.npz:x[1]"), "--weights",
                    place("data.safetensors:w"), "--json", ranks=2)
        self.assert_code(0, found)
        self.assertAlmostEqual(1, json.loads(found.stdout)["value"] / json.loads(expected.stdout)["value"],
                               delta=1e-13)
        result = run("solve", place("data.npz:A"), "--targets", place("data.safetensors:B"), "-o", place("run"), ranks=2)
        self.assert_code(0, result)
        self.assert_code(0, run("solve", place("A.npy"), place("b.npy"), "-o", place("one")))
        np.testing.assert_allclose(np.load(place("run") / "X.npy")[:, 0], np.load(place("one") / "x.npy"), rtol=1e-5)
        generator = np.random.default_rng(6)
        Q, K, V = (generator.standard_normal((n, 4)) for n in (30, 20, 20))
        mask = generator.random((30, 20)) < 0.5
        mask[:, 0] = True
        np.savez(place("attention.npz"), Q=Q.astype("f4"), K=K.astype("f4"), V=V, mask=mask)
        np.save(place("Q.npy"), Q.astype("f4"))
        np.save(place("K.npy"), K.astype("f4"))
        np.save(place("V.npy"), V)
        np.save(place("mask.npy"), mask.astype("f2"))
        names = ("Q", "K", "V", "mask")
        one, other = [place(f"{name}.npy") for name in names], [place(f"attention.npz:{name}") for name in names]
        for (*arguments, masked), out in ((one, "O.npy"), (other, "P.npy")):
            self.assert_code(0, run("apply", *arguments, "--mask", masked, "-o", place(out), ranks=2))
        np.testing.assert_array_equal(np.load(place("O.npy")), np.load(place("P.npy")))

    def test_inspect(self):
        place = lambda name: self.directory / name
        np.save(place("A.npy"), numbers(">i2", (3, 50, 2)))
        text = run("inspect", f"{place('A.npy')}[2]", ranks=2).stdout
        for part in ("(50, 2)", ">i2, held as float32", "minimum"):
            self.assertIn(part, text)
        for k in range(3):
            np.save(place(f"B.{k}.npy"), np.arange(4) + 4 * k)
        self.assertIn("(12,)", run("inspect", place("B.*.npy")).stdout)


if __name__ == "__main__":
    unittest.main()
