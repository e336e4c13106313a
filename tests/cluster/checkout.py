"""What the tests on several hosts share: the program, a checkout to work in, the blocks of docs/clusters.md."""

import json
import os
import pathlib
import re
import subprocess
import tempfile
import unittest

import numpy as np

PROGRAM = pathlib.Path(os.environ["ATTNREG_PROGRAM"])
SOURCE_DIR = pathlib.Path(os.environ.get("ATTNREG_SOURCE_DIR", pathlib.Path(__file__).parents[2]))
GUIDE = SOURCE_DIR / "docs" / "clusters.md"
WORDS = [SOURCE_DIR / "examples" / "data" / "words-4096" / name for name in ("A.npy", "b.npy")]
SOLVE_WORDS = ["solve", *WORDS, "--weight", "1e-4", "--quiet"]


def blocks(tag=None):
    """The shell blocks of the guide: (tag, commands). The line `<!-- runs: TAG -->` before a block says what can run
    it, `<!-- untested -->` that nothing here can."""
    pattern = r"(?:<!-- (?:runs: )?([a-z]+) -->\n)?```(?:sh|bash)\n(.*?)```"
    found = re.findall(pattern, GUIDE.read_text(), re.DOTALL)
    return [(name, text) for name, text in found if tag is None or name == tag]


def read_run(directory):
    return json.loads((pathlib.Path(directory) / "run.json").read_text())


def read_state(directory):
    return json.loads((pathlib.Path(directory) / "status.json").read_text())["state"]


class CheckoutTest(unittest.TestCase):
    """A directory of its own, laid out like a checkout with a release build."""

    def setUp(self):
        directory = tempfile.TemporaryDirectory(prefix="attnreg-test-")
        self.addCleanup(directory.cleanup)
        self.directory = pathlib.Path(directory.name)
        for name in ("launch", "examples"):
            (self.directory / name).symlink_to(SOURCE_DIR / name)
        (self.directory / "build/release/bin").mkdir(parents=True)
        (self.directory / "build/release/bin/attnreg").symlink_to(PROGRAM)

    def solve_here(self, ranks, name="single"):
        """x of the example on this host."""
        subprocess.run(["mpirun", "-n", str(ranks), PROGRAM, *SOLVE_WORDS, "-o", self.directory / name],
                       check=True, stdout=subprocess.DEVNULL, timeout=60)
        return np.load(self.directory / name / "x.npy")

    def assert_same_x(self, x, directory, ranks):
        """x on another layout differs by rounding only; README says how much it is on this example: 1e-13."""
        np.testing.assert_allclose(np.load(pathlib.Path(directory) / "x.npy"), x, rtol=0,
                                   atol=1e-12 * np.linalg.norm(x))
        run = read_run(directory)
        self.assertEqual("converged", run["summary"]["termination"])
        self.assertEqual(ranks, run["layout"]["ranks"])
        return run
