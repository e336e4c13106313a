"""A file system that is full, or nearly: code 6 and a status that says so, and the last result is as it was.

The tests mount small file systems: they run in a mount namespace of their own.
"""

import errno
import os
import subprocess
import sys
import unittest

import numpy as np

from command_line import CommandLineTest, read_status, run

INSIDE = "ATTNREG_TEST_NAMESPACE"
NAMESPACE = ["unshare", "--mount", *([] if os.geteuid() == 0 else ["--map-root-user"])]
KIB = 1024


def fill(path, left):
    """Takes what is free of the file system that the path is on, but for `left` bytes, a multiple of a page."""
    with open(path, "wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4 * KIB))
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
        file.truncate(max(0, file.tell() - left))


def contents(directory):
    return {path.name: path.read_bytes() for path in directory.iterdir() if path.is_file()}


@unittest.skipIf(INSIDE in os.environ, "this is the namespace")
class NamespaceTest(unittest.TestCase):
    def test_in_a_namespace(self):
        if subprocess.run([*NAMESPACE, "mount", "-t", "tmpfs", "none", "/mnt"], check=False).returncode != 0:
            self.skipTest("this system does not let its users mount file systems")
        test = subprocess.run([*NAMESPACE, sys.executable, "-B", "-m", "unittest", "-v", __file__], check=False,
                              env=os.environ | {INSIDE: "1"})
        self.assertEqual(0, test.returncode)


@unittest.skipUnless(INSIDE in os.environ, "runs in a namespace, by NamespaceTest")
class DiskTest(CommandLineTest):
    def setUp(self):
        super().setUp()
        self.A, self.b = self.directory / "A.npy", self.directory / "b.npy"
        self.disk = self.directory / "disk"
        self.disk.mkdir()

    def mount(self, kib):
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={kib}k", "none", self.disk], check=True)
        self.addCleanup(subprocess.run, ["umount", self.disk], check=True)


class SmallDiskTest(DiskTest):
    def fails(self, *options):
        result = run("solve", self.A, self.b, "-o", self.disk, *options)
        self.assert_code(6, result)
        self.assertIn("No space left", result.stderr)
        self.assertEqual(("failed", 6), read_status(self.disk))
        return result, set(os.listdir(self.disk))

    def test_noticed_before_the_first_iteration(self):
        np.save(self.A, np.random.default_rng(5).standard_normal((30, 2000)))
        np.save(self.b, np.full(30, 1 / 30))
        self.mount(48)  # run.json alone has 64 reserved
        result, files = self.fails()
        self.assertIn("reserve", result.stderr)
        self.assertNotIn("history.csv", files)
        self.assertFalse([name for name in files if ".tmp." in name])

    def test_full_in_the_middle(self):
        """Full of the history: x, run.json and the status are there all the same."""
        self.write_problem()
        self.mount(112)
        _, files = self.fails("--starts", 2000)
        self.assertLessEqual({"x.npy", "run.json"}, files)


class FullDiskTest(DiskTest):
    def setUp(self):
        super().setUp()
        self.write_problem(rows=20_000)
        self.mount(2048)

    def on_full_disks(self, arguments, check, kib, ranks=(1, 2)):
        """Runs the command with so many KiB left; returns the codes, of which the first, with nothing left, is 6."""
        codes = []
        for left in kib:
            for rank_count in ranks:
                with self.subTest(left=left, ranks=rank_count):
                    fill(self.disk / "filler", left * KIB)
                    result = run(*arguments, ranks=rank_count)
                    self.assertIn(result.code, (0, 6), repr(result))
                    if result.code == 6:
                        self.assertRegex(result.stderr, "No space left|no space")
                    check(result)
                    os.unlink(self.disk / "filler")
                    codes.append(result.code)
        self.assertEqual({6}, set(codes[: len(ranks)]))
        self.assertEqual({0}, set(codes[-len(ranks):]))

    def test_solve(self):
        out = self.disk / "run"
        arguments = ("solve", self.A, self.b, "-o", out, "--force", "--write-fitted", "--checkpoint", "0")
        self.assert_code(0, run(*arguments))
        x, files = np.load(out / "x.npy"), set(os.listdir(out))
        first = contents(out)

        def check(result):
            np.testing.assert_allclose(np.load(out / "x.npy"), x, rtol=0, atol=1e-9)
            self.assertLessEqual(set(os.listdir(out)), files | {"checkpoint", "history.partial.csv"})
            if result.code != 6 or contents(out) != first:  # else it could not even begin, and changed nothing
                self.assertEqual(("done", 0) if result.code == 0 else ("failed", 6), read_status(out))

        self.on_full_disks(arguments, check, (0, 4, 8, 12, 16, 20, 24, 32, 48, 96, 160, 200, 400))

    def test_single_files(self):
        x = self.directory / "x.npy"
        for name, arguments in (("scores.npy", ("scores", self.A)), ("f.npy", ("predict", self.A, x))):
            path = self.disk / name
            arguments = (*arguments, "-o", path, "--force")
            self.assert_code(0, run(*arguments))
            before = np.load(path)

            def check(_, path=path, before=before):
                np.testing.assert_allclose(np.load(path), before, rtol=1e-12)
                self.assertEqual({path.name, "filler"}, set(os.listdir(self.disk)))

            self.on_full_disks(arguments, check, (0, 4, 80, 200))
            os.unlink(path)

    def test_a_new_directory(self):
        names = set()

        def check(result):
            found = set(os.listdir(self.disk)) - {"filler"}
            names.update(found)
            if result.code == 0:
                np.load(self.disk / "new" / "A.npy")
            subprocess.run(["rm", "-rf", self.disk / "new"], check=True)

        self.on_full_disks(("generate", "practical", "--rows", "2000", "--cols", "10", "-o", self.disk / "new"), check,
                           (0, 4, 16, 64, 160, 400))
        self.assertLessEqual(names, {"new"})


if __name__ == "__main__":
    unittest.main()
