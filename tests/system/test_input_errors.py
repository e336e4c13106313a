"""Input that is no problem to solve: the right code, the file and the place, no hang, on one rank and on three."""

import os
import unittest
import warnings
import zipfile

import numpy as np

from command_line import ErrorTest, read_status, run


def npy_header(shape, dtype="<f8"):
    """The beginning of a version 1 file, without data."""
    text = f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}, }}"
    text += " " * (-(len(text) + 11) % 64) + "\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode()


class DataTest(ErrorTest):
    def solve_fails(self, *texts, code=3):
        self.fails(code, *texts, arguments=("solve", self.A, self.b, "-o", self.out))
        self.assertFalse((self.out / "x.npy").exists())

    def test_missing_files(self):
        self.fails(3, "absent.npy", arguments=("solve", self.directory / "absent.npy", self.b))
        self.fails(3, "absent.npy", arguments=("solve", self.A, self.directory / "absent.npy"))
        self.fails(3, "absent.npy", arguments=("solve", self.A, self.b, "--start", self.directory / "absent.npy"))
        self.fails(3, str(self.directory), arguments=("solve", self.directory, self.b))

    def test_not_finite(self):
        for row, value in ((0, -np.inf), (30, np.nan), (56, np.inf)):
            bad = self.array.copy()
            bad[row, 2] = value
            np.save(self.A, bad)
            self.assert_error(run("solve", self.A, self.b, ranks=3), 3, "A.npy", f"row {row}", "column 2")
        self.solve_fails("A.npy", "row 56", "column 2")
        np.save(self.A, self.array)
        np.save(self.b, np.where(np.arange(57) == 40, np.nan, self.target))
        self.solve_fails("b.npy", "40")

    def test_truncated(self):
        whole = self.A.read_bytes()
        for size in (len(whole) - 8, len(whole) - 1, 128, 100, 9, 3, 0):
            self.A.write_bytes(whole[:size])
            self.assert_error(run("solve", self.A, self.b, ranks=3), 3, "A.npy")
        self.A.write_bytes(whole[:-8])
        self.solve_fails("A.npy", str(len(whole)), str(len(whole) - 8))
        self.A.write_bytes(whole + b"surplus")
        self.solve_fails("A.npy")

    def test_members_that_are_there_twice(self):
        path, member = self.directory / "A.npz", self.directory / "data.npy"
        entries = {"data": np.ones(3), "indices": np.zeros(3, np.int32), "indptr": np.arange(4, dtype=np.int32),
                   "shape": np.array([3, 1]), "format": np.array(b"csr")}
        np.savez(path, **entries)
        np.save(member, np.zeros(3))
        with zipfile.ZipFile(path, "a") as archive, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it knows
            archive.write(member, "data.npy")
        self.fails(3, "A.npz", "data.npy", "two arrays", arguments=("inspect", path))

    def test_wrong_shape(self):
        np.save(self.b, self.target[:-1])
        self.solve_fails("b.npy", "(56,)", "57")
        np.save(self.b, np.ones((57, 2)))
        self.solve_fails("b.npy", "(57, 2)")
        np.save(self.b, np.float64(1))
        self.solve_fails("b.npy")
        np.save(self.b, self.target)
        np.save(self.A, np.ones((57, 3, 2)))
        self.solve_fails("A.npy", "(57, 3, 2)")
        np.save(self.A, np.ones((0, 3)))
        np.save(self.b, np.ones(0))
        self.solve_fails("A.npy", "(0, 3)")

    def test_wrong_start(self):
        np.save(self.directory / "x0.npy", np.ones(4))
        self.fails(3, "x0.npy", "4", "3", arguments=("solve", self.A, self.b, "--start", self.directory / "x0.npy"))

    def test_wrong_dtype(self):
        for array in (self.array.astype("<c16"), self.array.astype("<f16"), self.array.astype("S8"),
                      self.array.astype(object), self.array.astype([("a", "<f8")])):
            np.save(self.A, array, allow_pickle=True)
            self.assert_error(run("solve", self.A, self.b, ranks=3), 3, "A.npy", "expected")
        self.solve_fails("A.npy")

    def test_targets_that_a_loss_does_not_take(self):
        np.save(self.b, np.zeros(57))
        self.fails(3, "sum", arguments=("solve", self.A, self.b, "--loss", "cross-entropy"))

    def test_does_not_fit_in_memory(self):
        rows = 10**9
        for path, shape, values in ((self.A, (rows, 100), 100 * rows), (self.b, (rows,), rows)):
            header = npy_header(shape)
            path.write_bytes(header)
            os.truncate(path, len(header) + 8 * values)
        self.solve_fails("GB", code=7)
        self.assertEqual(("failed", 7), read_status(self.out))


if __name__ == "__main__":
    unittest.main()
