"""Outputs never destroy inputs, and replace what is there only where that was asked for."""

import os
import shutil
import unittest

import numpy as np

from command_line import CommandLineTest, run


class OutputsTest(CommandLineTest):
    def setUp(self):
        super().setUp()
        self.write_problem(rows=6)
        self.save("K", np.eye(6, 3))
        self.save("F", np.full((6, 6), 1 / 6))

    def save(self, name, array):
        np.save(self.path(name), array)

    def path(self, name):
        return self.directory / f"{name}.npy"

    def commands(self):
        """Command lines that write single files: what comes before the name of the file, and the inputs."""
        A, b, x, K = (self.path(name) for name in ("A", "b", "x", "K"))
        yield ["predict", A, x, "-o"], (A, x)
        yield ["scores", A, "-o"], (A,)
        yield ["evaluate", A, b, x, "--gradient"], (A, b, x)
        yield ["evaluate", A, b, x, "--hessian"], (A, b, x)
        yield ["apply", A, K, A, "-o"], (A, K)
        yield ["jobscript", "slurm", "--rows", "1000", "--cols", "10", "--ranks", "2", "-o"], ()

    def directories(self):
        """Command lines that write into a directory, and inputs there that have the names of their results."""
        A, b, F, K = (self.path(name) for name in ("A", "b", "F", "K"))
        yield ["solve", A, b, "--start"], "x.npy", np.zeros(3), "x.npy"
        data = ["attention", "--queries", A, "--keys", K, "--target"]
        yield [*data, F, "--start"], "X.npy", np.zeros((3, 3)), "."
        yield data, "X.npy", np.full((6, 6), 1 / 6), "X.npy"
        yield ["sparsify"], "Y.npy", np.eye(3, 6), "Y.npy"
        yield ["sample", "--rows", 3], "A.npy", np.eye(6, 3), "A.npy"
        yield ["experiment", "cycle-rank", "--rank", 1], "U.npy", np.ones((2, 3, 4)), "U.npy"
        yield ["experiment", "adversarial-training", "--widths", 5, A], "a.npy", np.ones(6), "a.npy"
        yield ["experiment", "gnn-features", F, A, "--layers"], "H_out.npy", np.eye(3), "H_out.npy"

    def test_outputs_are_not_inputs(self):
        """Under their own names, others in the file system, and with and without leave to replace files."""
        for ranks in (1, 3):
            for command, inputs in self.commands():
                for k, file in enumerate(inputs):
                    link = self.directory / f"link{k}.npy"
                    os.link(file, link)
                    before = file.read_bytes()
                    for name in (file, self.directory / "." / file.name, link):
                        for force in ([], ["--force"]):
                            with self.subTest(command=command[0], name=name.name, force=force, ranks=ranks):
                                self.assert_error(run(*command, name, *force, ranks=ranks), 6, "input")
                                self.assertEqual(before, file.read_bytes())
                                self.assertTrue(os.path.samefile(file, link))
                    link.unlink()

    def test_two_outputs_are_two_files(self):
        A, b, x, both = (self.path(name) for name in ("A", "b", "x", "both"))
        other = self.directory / "." / "sub" / ".." / both.name
        for command in (["apply", A, A, A, "--kernel", "threshold", "--top", 2, "-o", both, "--rank-one", other],
                        ["apply", A, A, A, "--kernel", "threshold", "--top", 2, "-o", both, "--sparse", both],
                        ["evaluate", A, b, x, "--gradient", both, "--hessian", both]):
            with self.subTest(command=command):
                self.assert_error(run(*command), 2, "name the same file")
                self.assertFalse(both.exists())

    def test_runs_do_not_replace_their_inputs(self):
        for ranks in (1, 3):
            for command, name, values, argument in self.directories():
                out = self.directory / "out"
                out.mkdir()
                np.save(out / name, values)
                before = (out / name).read_bytes()
                with self.subTest(command=command[0], ranks=ranks):
                    self.assert_error(run(*command, out / argument, "-o", out, "--force", ranks=ranks), 6, name,
                                      "input")
                    self.assertEqual(before, (out / name).read_bytes())
                shutil.rmtree(out)

    def test_inputs_in_lists_and_tables(self):
        A, F, K, out = self.path("A"), self.path("F"), self.path("K"), self.directory / "out"
        self.save("square", np.eye(3))
        out.mkdir()
        np.save(out / "H_out.npy", np.eye(3))
        np.savetxt(out / "exp-network.csv", np.ones(6))
        for name, command in (("H_out.npy", ["experiment", "gnn-features", F, A, "--layers",
                                             f"{self.path('square')},{out / 'H_out.npy'}", "--repeats", 1]),
                              ("exp-network.csv", ["experiment", "exp-network", K, out / "exp-network.csv", "--widths", 5,
                                                   "--steps", 2])):
            before = (out / name).read_bytes()
            self.save("K", np.ones((6, 2)))
            for ranks in (1, 3):
                with self.subTest(name=name, ranks=ranks):
                    self.assert_error(run(*command, "-o", out, "--force", ranks=ranks), 6, name, "input")
                    self.assertEqual(before, (out / name).read_bytes())

    def test_files_are_replaced_on_demand_only(self):
        for ranks in (1, 3):
            for command, _ in self.commands():
                out = self.directory / "out"
                out.write_bytes(b"before")
                with self.subTest(command=command[0], ranks=ranks):
                    self.assert_error(run(*command, out, ranks=ranks), 6, "exists", "--force")
                    self.assertEqual(b"before", out.read_bytes())
                    self.assert_code(0, run(*command, out, "--force", ranks=ranks))
                    self.assertNotEqual(b"before", out.read_bytes())
                out.unlink()

    def test_links_are_not_written_through(self):
        """Neither by single files nor by the history of a run."""
        other = self.directory / "other"
        for command, _ in self.commands():
            for link in (os.link, os.symlink):
                other.write_bytes(b"before")
                out = self.directory / "out"
                link(other, out)
                with self.subTest(command=command[0], link=link.__name__):
                    code = run(*command, out, "--force").code
                    self.assertEqual(6 if link is os.symlink else 0, code)
                    self.assertEqual(b"before", other.read_bytes())
                out.unlink()
        for name in ("history.csv", "status.json", "x.npy", "run.json"):
            run_directory = self.directory / "run"
            run_directory.mkdir()
            other.write_bytes(b"before")
            os.link(other, run_directory / name)
            with self.subTest(name=name):
                self.assert_code(0, run("solve", self.path("A"), self.path("b"), "-o", run_directory, "--force"))
                self.assertEqual(b"before", other.read_bytes())
                self.assertNotEqual(b"before", (run_directory / name).read_bytes())
            shutil.rmtree(run_directory)


if __name__ == "__main__":
    unittest.main()
