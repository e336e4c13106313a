"""The types in which A is held: what is solved then, and the numbers that they cannot hold."""

import unittest

import numpy as np

import test_bad_numbers
import test_solve
from command_line import read_json, run, softmax
from test_solve import A_WORDS, MINIMA


class StorageTest(test_solve.WordsSolve):
    def test_storage(self):
        np.save(self.directory / "A.npy", np.load(A_WORDS).astype("<f8"))
        for storage in ("float", "double", "file"):
            with self.subTest(storage=storage):
                result, _, summary = self.solve("1e-4", "--storage", storage, A=self.directory / "A.npy")
                self.assertAlmostEqual(summary["value"] / MINIMA["1e-4"], 1, delta=1e-8)
                self.assertIn("as float32" if storage == "float" else "as float64", result.stdout)

    def test_storage_of_fewer_bits(self):
        """What is solved is the problem of the rounded matrix, as the summary says. Files of float16 stay so."""
        A = np.load(A_WORDS).astype("<f8")
        np.save(self.directory / "A.npy", A)
        bits = A.astype("f4").view("u4")  # A is from a file of float32
        bfloat16 = (bits + 0x7fff + (bits >> 16 & 1) & 0xffff0000).view("f4")
        rounded = {"half": A.astype("f2"), "bfloat16": bfloat16}
        for storage, name in (("half", "float16"), ("bfloat16", "bfloat16")):
            result, out, summary = self.solve("1e-4", "--storage", storage, A=self.directory / "A.npy", ranks=2)
            x, notes = np.load(out / "x.npy"), read_json(out / "run.json")["notes"]
            note = f"A was rounded from float64 to {name}"
            self.assertIn(f"as {name}", result.stdout)
            self.assertTrue(note in result.stdout and any(text.startswith(note) for text in notes), notes)
            np.save(self.directory / "R.npy", rounded[storage])
            result, out, other = self.solve("1e-4", A=self.directory / "R.npy", ranks=3)
            self.assertIn("as float16" if storage == "half" else "as float32", result.stdout)
            self.assertNotIn("rounded from", result.stdout)
            self.assertAlmostEqual(summary["value"] / other["value"], 1, delta=1e-12)
            self.assertLess(np.linalg.norm(np.load(out / "x.npy") - x), 1e-8 * np.linalg.norm(x))


class UnfitNumbersTest(test_bad_numbers.BadNumbersTest):
    def test_numbers_that_float_cannot_hold(self):
        for value, size in ((1e-50, "small"), (-1e300, "large"), (1e-40, "small"), (-1e-320, "small")):
            A = np.random.default_rng(11).standard_normal((100, 3))
            A[70, 2] = value
            self.save(b=softmax(A[:, 0]), x=np.zeros(3), A_F=np.asfortranarray(A))
            np.savez(self.path("T.npz"), **test_bad_numbers.transposed_arrays(A))
            dense, sparse = self.save_both("A", A)
            for path in (dense, self.path("A_F.npy"), sparse):
                self.refused(3, path.name, "row 70, column 2", f"{value:g}"[:4], f"too {size} for float",
                             "--storage double", arguments=("solve", path, self.path("b.npy"), "--storage", "float"))
            for path in (dense, sparse, self.path("T.npz")):
                self.refused(3, path.name, "row 70, column 2", f"too {size} for float",
                             arguments=("sparsify", path, "--storage", "float"))
        self.save(A=np.random.default_rng(11).standard_normal((100, 3)) * 1e-50)
        self.refused(3, "300 values", arguments=("solve", self.path("A.npy"), self.path("b.npy"), "--storage", "float"))

    def test_numbers_that_half_and_bfloat16_cannot_hold(self):
        A = np.random.default_rng(11).standard_normal((100, 3))
        self.save(b=softmax(A[:, 0]))
        A[70, 2] = -70000
        dense, sparse = self.save_both("A", A)
        self.refused(3, dense.name, "row 70, column 2 is -70000", "too large for half", "--storage double",
                     arguments=("solve", dense, self.path("b.npy"), "--storage", "half"))
        self.refused(3, dense.name, "row 70, column 2", "too large for half",
                     arguments=("sparsify", dense, "--storage", "half"))
        self.refused(3, sparse.name, "not in half",
                     arguments=("solve", sparse, self.path("b.npy"), "--storage", "half"))
        A[70, 2] = 1e-40
        dense, _ = self.save_both("A", A)
        self.refused(3, "row 70, column 2", "too small for bfloat16",
                     arguments=("solve", dense, self.path("b.npy"), "--storage", "bfloat16"))
        A[:, 1] *= 1e-9
        dense, _ = self.save_both("A", A)
        self.refused(3, "largest value of column 1", "bfloat16",
                     arguments=("solve", dense, self.path("b.npy"), "--storage", "half"))

    def test_numbers_that_float_holds_are_kept(self):
        A = np.random.default_rng(1).standard_normal((40, 2))
        A[3, 1], A[5, 0] = 0, np.float32(1e-40)  # the second is what float has of it, all its digits
        self.save(b=softmax(A[:, 0]))
        for path in self.save_both("A", A):
            for storage in ("float", "double", "file"):
                self.assert_code(0, run("solve", path, self.path("b.npy"), "--storage", storage, "-q", ranks=3))
        for path in self.save_both("A", A.astype("f4")):
            self.assert_code(0, run("solve", path, self.path("b.npy"), "--storage", "double", "-q", ranks=3))


if __name__ == "__main__":
    unittest.main()
