"""Little memory: a limit on the address space, archives that grow, more columns than rows."""

import io
import os
import pathlib
import resource
import subprocess
import tempfile
import unittest
import zipfile

import numpy as np

from command_line import PROGRAM, CommandLineTest, ErrorTest, measures_memory, run, softmax
from test_sparse import csr_arrays

GIBI = 1 << 30


def address_space(megabytes):
    """For `preexec`: a limit that ranks inherit from mpirun."""
    def limit():
        resource.setrlimit(resource.RLIMIT_AS, (megabytes << 20, megabytes << 20))

    return limit


@measures_memory
class AddressSpaceTest(ErrorTest):
    def test_no_room_for_the_buffers_of_blas(self):
        """OpenBLAS would wait for them for ever; the other ranks with it."""
        for ranks in (1, 2):
            for megabytes in (280, 310):
                with self.subTest(ranks=ranks, megabytes=megabytes):
                    result = run("solve", self.A, self.b, ranks=ranks, preexec=address_space(megabytes),
                                 environment={"ATTNREG_WATCHDOG": ""})  # its thread needs room, too
                    self.assert_error(result, 7, "buffers of BLAS", "ulimit -v", "rank ")

    def test_a_limit_that_is_no_burden(self):
        for ranks in (1, 2):
            self.assert_code(0, run("solve", self.A, self.b, ranks=ranks, preexec=address_space(1000)))

    def test_a_matrix_that_the_limit_has_no_room_for(self):
        rows = 2_000_000
        with open(self.A, "wb") as file:  # a hole: it takes no space
            np.lib.format.write_array_header_1_0(file, {"descr": "<f8", "fortran_order": False, "shape": (rows, 100)})
            file.truncate(file.tell() + rows * 100 * 8)
        np.save(self.b, np.full(rows, 1 / rows))
        for ranks in (1, 2):
            result = run("solve", self.A, self.b, ranks=ranks, preexec=address_space(1000))
            self.assert_error(result, 7, "A.npy", "limit on the address space (ulimit -v) leaves")


class ArchiveTest(CommandLineTest):
    def write_archive(self, entries):
        """Two rows of ones, all in column 0: `entries` of them, written piece by piece."""
        path = self.directory / "A.npz"
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
            def add(name, dtype, count, piece):
                with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                    header = io.BytesIO()
                    np.lib.format.write_array_header_1_0(
                        header, {"descr": np.dtype(dtype).str, "fortran_order": False, "shape": (count,)})
                    member.write(header.getvalue())
                    for first in range(0, count, 1 << 22):
                        member.write(piece(first, min(count, first + (1 << 22))).astype(dtype).tobytes())

            def add_small(name, array):
                small = io.BytesIO()
                np.save(small, array)
                archive.writestr(f"{name}.npy", small.getvalue())

            add_small("format", np.array(b"csr"))
            add_small("shape", np.array([2, 1 << 20]))
            add("indptr", "<i8", 3, lambda first, last: np.array([0, entries // 2, entries])[first:last])
            add("indices", "<i4", entries, lambda first, last: np.zeros(last - first))
            add("data", "<f8", entries, lambda first, last: np.ones(last - first))
        return path

    @measures_memory
    def test_an_archive_that_grows_to_gigabytes(self):
        path = self.write_archive(90_000_000)  # some MB of file, 1.08 GB of numbers
        self.assertLess(path.stat().st_size, 8_000_000)
        np.save(self.directory / "b.npy", np.array([0.5, 0.5]))
        for ranks in (1, 2):
            for command in (("solve", path, self.directory / "b.npy"), ("inspect", path)):
                self.assert_error(run(*command, ranks=ranks), 3, "A.npz", "--trust-input", "100 times")
        # Trusted, it is read, and found to be no matrix for another reason: the limit holds before it is filled in.
        result = run("solve", path, self.directory / "b.npy", "--trust-input", preexec=address_space(1000))
        self.assert_error(result, 7, "A.npz", "ulimit -v")

    def test_honest_archives_pass(self):
        rows = 200_000
        A = np.zeros((rows, 3))
        A[np.arange(rows), np.arange(rows) % 3] = 1  # one-hot
        np.savez_compressed(self.directory / "A.npz", **csr_arrays(A))
        np.save(self.directory / "b.npy", np.full(rows, 1 / rows))
        self.assert_code(0, run("solve", self.directory / "A.npz", self.directory / "b.npy"))


class WideTest(CommandLineTest):
    def test_twenty_rows_of_many_columns(self):
        """Solved in the row space, where d x d numbers would be 80 GB; the least x, whatever the ranks."""
        n, d = 20, 100_000
        generator = np.random.default_rng(3)
        A = generator.standard_normal((n, d)) / np.sqrt(d)
        b = generator.random(n)
        b /= b.sum()
        w = 1e-3
        np.save(self.directory / "A.npy", A)
        np.save(self.directory / "b.npy", b)
        xs = []
        for ranks in (1, 3):
            out = self.directory / f"run{ranks}"
            result = run("solve", self.directory / "A.npy", self.directory / "b.npy", "--weight", w, "-o", out,
                         ranks=ranks)
            self.assert_code(0, result)
            self.assertIn("row space", result.stdout)
            x = np.load(out / "x.npy")
            f = softmax(A @ x)
            c = f - b
            gradient = A.T @ (f * c - f * (f @ c) + w**2 * (A @ x))
            at_zero = A.T @ (np.full(n, 1 / n) * (1 / n - b) - np.full(n, 1 / n) * (1 / n - b).mean())
            scale = np.sqrt(((A - A.mean(axis=0))**2).sum(axis=0))
            self.assertLess(np.linalg.norm(gradient / scale), 1e-9 * np.linalg.norm(at_zero / scale))
            scaled = (A / scale).T  # S x lies in the span of the rows of A S^-1
            inside = scaled @ np.linalg.lstsq(scaled, x * scale, rcond=None)[0]
            self.assertLess(np.linalg.norm(inside - x * scale), 1e-9 * np.linalg.norm(x * scale))
            xs.append(x)
        self.assertLess(np.linalg.norm(xs[0] - xs[1]), 1e-6 * np.linalg.norm(xs[0]))

    def test_where_all_columns_are_asked_for(self):
        np.save(self.directory / "A.npy", np.ones((5, 400_000), dtype="<f4"))
        np.save(self.directory / "b.npy", np.full(5, 0.2))
        result = run("solve", self.directory / "A.npy", self.directory / "b.npy", "--certificate", "full")
        self.assert_error(result, 7, "more columns than rows", "--certificate gradient")


@measures_memory
class VectorsOfRowsTest(CommandLineTest):
    """The memory of a solve beyond A, in doubles a row."""

    ROWS, COLUMNS = 1_000_000, 2

    def peak(self, *arguments):
        """Bytes of one process without mpirun."""
        with tempfile.TemporaryDirectory(prefix="attnreg-mpi-") as sessions:
            environment = os.environ | {"OMPI_MCA_ess_singleton_isolated": "1", "OMPI_MCA_orte_tmpdir_base": sessions,
                                        "OMP_NUM_THREADS": "1"}
            out = pathlib.Path(sessions) / "out"
            process = subprocess.Popen([PROGRAM, "solve", *map(str, arguments), "-o", out, "--quiet"], env=environment,
                                       stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
            errors = process.stderr.read()
            process.stderr.close()
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
        self.assertEqual(process.returncode, 0, errors)
        return 1024 * usage.ru_maxrss

    def test_vectors_of_rows(self):
        """b, z, curvatures, norms of rows, scores, A s, A p: at most 8 at a time, b among them."""
        generator = np.random.default_rng(3)
        sizes = {}
        for name, rows in (("small", 1000), ("large", self.ROWS)):
            A = generator.standard_normal((rows, self.COLUMNS))
            logits = 2 * A @ [1, -1] + 0.3 * generator.standard_normal(rows)
            np.save(self.directory / f"A-{name}.npy", A)
            np.save(self.directory / f"b-{name}.npy", np.exp(logits) / np.exp(logits).sum())
        for method in ("auto", "newton", "newton-cg"):
            with self.subTest(method=method):
                for name in ("small", "large"):
                    sizes[name] = self.peak(self.directory / f"A-{name}.npy", self.directory / f"b-{name}.npy",
                                            "--weight", 1e-7, "--method", method)
                vectors = (sizes["large"] - sizes["small"]) / (8 * self.ROWS) - self.COLUMNS
                # Blocks of sampled rows, a few MiB, and what the allocator keeps.
                self.assertLessEqual(vectors, 8 + (16 << 20) / (8 * self.ROWS))


if __name__ == "__main__":
    unittest.main()
