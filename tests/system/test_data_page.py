"""The examples of docs/data.md: each section's files are made and read as it says."""

import os
import re
import shutil
import subprocess
import sys
import unittest

from command_line import MPIRUN, PROGRAM, SOURCE_DIR, TIMEOUT_SECONDS, CommandLineTest

NEEDED = {"scipy": "scipy.sparse", "h5py": "h5py", "sklearn": "sklearn.datasets"}


class DataPageTest(CommandLineTest):
    def run_block(self, language, text, directory):
        command = [sys.executable, "-c", text] if language == "python" else ["bash", "-e", "-o", "pipefail", "-c", text]
        tools = self.directory / "bin"
        variables = {**os.environ, "PATH": f"{tools}:{os.path.dirname(shutil.which(MPIRUN))}:{os.environ['PATH']}"}
        result = subprocess.run(command, cwd=directory, env=variables, stdin=subprocess.DEVNULL, capture_output=True,
                                timeout=4 * TIMEOUT_SECONDS, check=False)
        self.assertEqual(0, result.returncode, f"{text}\n{result.stdout.decode()}\n{result.stderr.decode()}")

    def test_examples(self):
        (self.directory / "bin").mkdir()
        (self.directory / "bin" / "attnreg").symlink_to(PROGRAM)
        page = (SOURCE_DIR / "docs" / "data.md").read_text()
        sections = [section for section in page.split("\n## ") if "```" in section]
        self.assertGreater(len(sections), 3)
        for section in sections:
            title = section.splitlines()[0]
            with self.subTest(title):
                directory = self.directory / re.sub(r"\W", "-", title)
                directory.mkdir()
                blocks = re.findall(r"```(python|sh)\n(.*?)```", section, re.DOTALL)
                self.assertEqual({"python", "sh"}, {language for language, _ in blocks})
                for language, text in blocks:
                    missing = [name for name, module in NEEDED.items() if re.search(rf"\b{name}\b", text)
                               and subprocess.run([sys.executable, "-c", f"import {module}"], capture_output=True,
                                                  check=False).returncode]
                    if missing:
                        self.skipTest(f"without {missing[0]}")
                    self.run_block(language, text, directory)


if __name__ == "__main__":
    unittest.main()
