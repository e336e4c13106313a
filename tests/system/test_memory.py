"""The memory of a solve beyond A, in doubles a row."""

import os
import pathlib
import subprocess
import tempfile
import unittest

import numpy as np

from command_line import PROGRAM, CommandLineTest

ROWS, COLUMNS = 1_000_000, 2
MIB = 1 << 20


class MemoryTest(CommandLineTest):
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
        for name, rows in (("small", 1000), ("large", ROWS)):
            A = generator.standard_normal((rows, COLUMNS))
            logits = 2 * A @ [1, -1] + 0.3 * generator.standard_normal(rows)
            np.save(self.directory / f"A-{name}.npy", A)
            np.save(self.directory / f"b-{name}.npy", np.exp(logits) / np.exp(logits).sum())
        for method in ("auto", "newton", "newton-cg"):
            with self.subTest(method=method):
                for name in ("small", "large"):
                    sizes[name] = self.peak(self.directory / f"A-{name}.npy", self.directory / f"b-{name}.npy",
                                            "--weight", 1e-7, "--method", method)
                vectors = (sizes["large"] - sizes["small"]) / (8 * ROWS) - COLUMNS
                # Blocks of sampled rows, a few MiB, and what the allocator keeps.
                self.assertLessEqual(vectors, 8 + 16 * MIB / (8 * ROWS))


if __name__ == "__main__":
    unittest.main()
