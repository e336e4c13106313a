"""Sparse matrices: what generate writes NumPy reads; what SciPy writes is read; malformed archives are refused."""

import unittest
import zipfile

import numpy as np

from command_line import CommandLineTest, ErrorTest, read_json, run

try:
    import scipy.sparse
except ImportError:
    scipy = None


def csr_arrays(dense):
    """The arrays that scipy.sparse.save_npz writes for a CSR matrix."""
    rows, columns = np.nonzero(dense)
    return {"indices": columns.astype("<i4"), "indptr": np.searchsorted(rows, np.arange(len(dense) + 1)).astype("<i4"),
            "format": np.array(b"csr"), "shape": np.array(dense.shape), "data": dense[rows, columns]}


def sparse_matrix(rows=57, columns=6):
    generator = np.random.default_rng(5)
    return np.where(generator.random((rows, columns)) < 0.4, generator.standard_normal((rows, columns)), 0)


class GenerateTest(CommandLineTest):
    def generate(self, name, *options, ranks=0):
        out = self.directory / name
        self.assert_code(0, run("generate", "sparse", "--rows", 2500, "--cols", 50, "-o", out, *options, ranks=ranks))
        return out

    def test_files(self):
        for dtype in ("float64", "float32"):
            out = self.generate(dtype, "--nonzeros-per-row", 5, "--dtype", dtype, ranks=3)
            with zipfile.ZipFile(out / "A.npz") as archive:
                self.assertIsNone(archive.testzip())  # the checksums that the ranks joined
            arrays = np.load(out / "A.npz")
            self.assertEqual(b"csr", arrays["format"].item())
            self.assertEqual([2500, 50], arrays["shape"].tolist())
            self.assertEqual(np.dtype(dtype), arrays["data"].dtype)
            np.testing.assert_array_equal(np.arange(0, 12501, 5), arrays["indptr"])
            np.testing.assert_array_equal(np.tile(np.arange(5), 2500), arrays["indices"] // 10)
            for name in ("data", "indices", "indptr"):
                alone = np.load(out / f"A_{name}.npy")
                np.testing.assert_array_equal(arrays[name], alone)
                self.assertEqual(arrays[name].dtype, alone.dtype)
            x = np.load(out / "x_true.npy")
            z = (arrays["data"].astype(float) * x[arrays["indices"]]).reshape(-1, 5).sum(1)
            e = np.exp(z - z.max())
            np.testing.assert_allclose(np.load(out / "b.npy"), e / e.sum(), rtol=1e-12)
            self.assertEqual(5, read_json(out / "meta.json")["nonzeros_per_row"])
            if scipy:
                self.assertEqual((2500, 50), scipy.sparse.load_npz(out / "A.npz").shape)

    def test_same_bytes_on_any_number_of_ranks(self):
        one, three = self.generate("one", ranks=1), self.generate("three", ranks=3)
        for path in one.iterdir():
            self.assertEqual(path.read_bytes(), (three / path.name).read_bytes(), path.name)

    def test_refusals(self):
        out = self.generate("A")
        self.assert_error(run("generate", "sparse", "--rows", 9, "--cols", 20, "-o", out), 6, "A.npz exists")
        self.assert_error(run("generate", "sparse", "--rows", 9, "--cols", 4, "-o", self.directory / "B"), 3,
                          "nonzeros_per_row is 10")


class InspectTest(CommandLineTest):
    def test_stored_and_deflated(self):
        dense = sparse_matrix()
        for save in (np.savez, np.savez_compressed):
            for index_type in ("<i4", "<i8", ">i8"):
                arrays = csr_arrays(dense)
                arrays.update({name: arrays[name].astype(index_type) for name in ("indices", "indptr")})
                save(self.directory / "A.npz", **arrays)
                for ranks in (0, 3):
                    result = run("inspect", self.directory / "A.npz", "--json", ranks=ranks)
                    self.assert_code(0, result)
                    path = self.directory / "facts.json"
                    path.write_text(result.stdout)
                    facts = read_json(path)
                    self.assertEqual([57, 6], facts["shape"])
                    self.assertEqual("csr", facts["format"])
                    self.assertEqual(np.count_nonzero(dense), facts["nonzeros"])
                    self.assertEqual(np.count_nonzero(dense, axis=1).max(), facts["longest_row"])
                    self.assertEqual((~dense.any(axis=1)).sum(), facts["empty_rows"])
                    self.assertEqual((dense.min(), dense.max()), (facts["minimum"], facts["maximum"]))

    @unittest.skipUnless(scipy, "no SciPy")
    def test_what_scipy_writes(self):
        for compressed in (False, True):
            scipy.sparse.save_npz(self.directory / "A.npz", scipy.sparse.csr_matrix(sparse_matrix()), compressed)
            self.assert_code(0, run("inspect", self.directory / "A.npz"))


class SolveTest(CommandLineTest):
    """The commands give for a sparse matrix what they give for the same one dense."""

    def setUp(self):
        super().setUp()
        dense = sparse_matrix(rows=300, columns=6)
        dense[100:110] = 0
        z = 2 * dense @ np.arange(1, 7) / 6
        np.savez_compressed(self.directory / "A.npz", **csr_arrays(dense))
        np.save(self.directory / "A.npy", dense)
        np.save(self.directory / "b.npy", np.exp(z) / np.exp(z).sum())
        np.save(self.directory / "w.npy", np.linspace(1e-4, 1e-3, 300))
        np.save(self.directory / "x.npy", np.linspace(-1, 1, 6))

    def results(self, command, result_file, *options):
        results = []
        for matrix, ranks in (("A.npy", 1), ("A.npz", 1), ("A.npz", 3)):
            out = self.directory / f"{command[0]}-{matrix}-{ranks}"
            arguments = [self.directory / (matrix if name == "A" else name) for name in command[1:]]
            self.assert_code(0, run(command[0], *arguments, *options, "-o", out, "--force", ranks=ranks))
            results.append(np.load(out / result_file if result_file else out))
        return results

    def assert_alike(self, results, tolerance):
        for result in results[1:]:
            np.testing.assert_allclose(result, results[0], rtol=tolerance, atol=tolerance * abs(results[0]).max())

    def test_solve(self):
        for method in ("newton", "newton-cg"):
            options = ("--method", method, "--weights", self.directory / "w.npy", "--certificate", "full")
            self.assert_alike(self.results(("solve", "A", "b.npy"), "x.npy", *options), 1e-7)

    def test_predict(self):
        self.assert_alike(self.results(("predict", "A", "x.npy"), None), 1e-13)

    def test_scores(self):
        self.assert_alike(self.results(("scores", "A"), None, "--exact"), 1e-10)
        self.assert_alike(self.results(("scores", "A"), None), 1e-10)

    def test_evaluate(self):
        gradients = []
        for matrix, ranks in (("A.npy", 1), ("A.npz", 1), ("A.npz", 3)):
            out = self.directory / "gradient.npy"
            self.assert_code(0, run("evaluate", self.directory / matrix, self.directory / "b.npy",
                                    self.directory / "x.npy", "--gradient", out, "--force", ranks=ranks))
            gradients.append(np.load(out))
        self.assert_alike(gradients, 1e-12)


class MalformedTest(ErrorTest):
    def setUp(self):
        super().setUp()
        self.A = self.directory / "A.npz"
        self.arrays = csr_arrays(sparse_matrix())

    def refused(self, *texts, ranks=3, **changes):
        arrays = {**self.arrays, **changes}
        for save in (np.savez, np.savez_compressed):
            save(self.A, **{name: array for name, array in arrays.items() if array is not None})
            self.assert_error(run("inspect", self.A, ranks=ranks), 3, "A.npz", *texts)

    def changed(self, name, place, value):
        array = self.arrays[name].copy()
        array[place] = value
        return array

    def test_other_formats(self):
        self.refused("lil", "A.tocsr()", format=np.array(b"lil"))
        self.refused("lil", "A.tocsr()", format=np.array("lil"))
        self.refused("no array 'row'", format=np.array(b"coo"), indptr=None, indices=None)
        self.refused("no array", "scipy.sparse.save_npz", format=None)
        self.refused("no array 'indptr'", indptr=None)

    def test_wrong_arrays(self):
        nonzeros = len(self.arrays["data"])
        self.refused("indptr.npy", "starts with", indptr=self.changed("indptr", 0, 1))
        self.refused("indptr.npy", "decreases at row 29", indptr=self.changed("indptr", 30, 0))
        self.refused("indptr.npy", f"expected {nonzeros}", indptr=self.changed("indptr", -1, nonzeros + 1))
        self.refused("indptr.npy", "(57,)", "(58,)", indptr=self.arrays["indptr"][:-1])
        self.refused("indices.npy", "in column 6", indices=self.changed("indices", -1, 6))
        self.refused("indices.npy", "in column -1", indices=self.changed("indices", 0, -1))
        self.refused("indices.npy", "shape", indices=self.arrays["indices"][:-1])
        self.refused("data.npy", "S3", "astype", data=self.arrays["data"].astype("S3"))
        self.refused("data.npy", "c16", data=self.arrays["data"].astype("<c16"))
        self.refused("indices.npy", "f8", indices=self.arrays["indices"].astype("<f8"))
        self.refused("at least one row", shape=np.array((0, 6)), indptr=np.zeros(1, "<i4"))
        self.refused("shape.npy", shape=np.array((57, 6, 1)))

    def test_not_finite(self):
        row = np.searchsorted(self.arrays["indptr"], 20, side="right") - 1
        column = self.arrays["indices"][20]
        self.refused(f"row {row}", f"column {column}", "nan", "1 value is", data=self.changed("data", 20, np.nan))

    def test_truncated_and_damaged(self):
        for save in (np.savez, np.savez_compressed):
            save(self.A, **self.arrays)
            whole = self.A.read_bytes()
            for size in (0, 3, 100, len(whole) // 2, len(whole) - 1):
                self.A.write_bytes(whole[:size])
                self.assert_error(run("inspect", self.A, ranks=3), 3, "A.npz")
        np.savez_compressed(self.A, **self.arrays)
        whole = bytearray(self.A.read_bytes())
        with zipfile.ZipFile(self.A) as archive:
            data = archive.getinfo("data.npy")
        whole[data.header_offset + 30 + len("data.npy") + 20 + data.compress_size // 2] ^= 0xff
        self.A.write_bytes(whole)
        self.fails(3, "A.npz/data.npy", arguments=("inspect", self.A))

    def test_every_command_says_so(self):
        np.savez(self.A, **{**self.arrays, "format": np.array(b"lil")})
        np.save(self.directory / "x.npy", np.zeros(6))
        out = self.directory / "out.npy"
        for arguments in (("solve", self.A, self.b), ("evaluate", self.A, self.b, self.directory / "x.npy"),
                          ("predict", self.A, self.directory / "x.npy", "-o", out), ("scores", self.A, "-o", out)):
            self.assert_error(run(*arguments, ranks=3), 3, "A.npz", "lil")
        np.savez(self.A, **self.arrays)
        self.fails(3, "b.npy", "(57,)", arguments=("solve", self.wrong_target(), self.b))

    def wrong_target(self):
        """A matrix with another number of rows than b has."""
        path = self.directory / "small.npz"
        np.savez(path, **csr_arrays(sparse_matrix(rows=11)))
        return path

    def test_does_not_fit_in_memory(self):
        """What a solve of all columns holds besides the rows, matrices of 2 million columns squared, is not there."""
        np.savez(self.A, **{**self.arrays, "shape": np.array((57, 2 * 10**6))})
        self.fails(7, "GB", arguments=("solve", self.A, self.b, "--certificate", "full"))
        self.assert_code(0, run("inspect", self.A))

    def test_rows_without_entries_do_not_fit_in_memory(self):
        text = self.directory / "A.mtx"
        text.write_text("%%MatrixMarket matrix coordinate real general\n100000000000 2 1\n1 1 -1\n")
        coordinates = self.directory / "coo.npz"
        np.savez(coordinates, row=np.zeros(1, int), col=np.zeros(1, int), data=np.ones(1), shape=(10**11, 2),
                 format=np.array(b"coo"))
        for matrix in (text, coordinates):
            for ranks in (1, 3):
                self.assert_error(run("scores", matrix, "-o", self.directory / "out.npy", ranks=ranks), 7, matrix.name, "GB")


if __name__ == "__main__":
    unittest.main()
