"""The image and the cluster of containers: built from a clean checkout, solved on three nodes, a node killed.

Needs root, or the group docker; starts a Docker daemon if none answers, and ends it. Builds the whole program: minutes.
"""

import json
import os
import pathlib
import re
import shutil
import subprocess
import tarfile
import tempfile
import time
import unittest

import numpy as np

from checkout import GUIDE, SOURCE_DIR, WORDS, blocks, read_run, read_state
from hosts import require, run_tests, skip, wait_until

PROJECT = f"attnreg-test-{os.getpid()}"
DOCKERD = SOURCE_DIR / "tests/cluster/dockerd.sh"


def command(*words, cwd=None, timeout=60, code=0):
    result = subprocess.run([*map(str, words)], cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                            timeout=timeout, env={**os.environ, "COMPOSE_PROJECT_NAME": PROJECT})
    if code is not None and result.returncode != code:
        raise AssertionError(f"code {result.returncode}, expected {code}: {words}\n{result.stdout}")
    return result.stdout


def private_keys(image):
    """The files with a private key in all layers of an image, also those that a later layer removes; and the number of
    files. Programs and libraries are left out: those of TLS have keys for tests of their own."""
    key = re.compile(rb"-----BEGIN (?:[A-Z]+ )?PRIVATE KEY-----\s+[A-Za-z0-9+/=\s]{100}")
    found, files = [], 0
    with subprocess.Popen(["docker", "save", image], stdout=subprocess.PIPE) as save:
        for layer in (archive := tarfile.open(fileobj=save.stdout, mode="r|")):
            if not layer.isfile():
                continue
            try:
                members = tarfile.open(fileobj=archive.extractfile(layer), mode="r|*")
            except tarfile.ReadError:
                continue  # a description, not a layer
            for member in members:
                if member.isfile():
                    files += 1
                    content = members.extractfile(member).read()
                    if not content.startswith(b"\x7fELF") and key.search(content):
                        found.append(member.name)
    return found, files


class ContainersTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        directory = tempfile.TemporaryDirectory(prefix="attnreg-test-")
        cls.addClassCleanup(directory.cleanup)
        cls.checkout = pathlib.Path(directory.name) / "attnreg"
        command("git", "clone", "-q", "--no-hardlinks", SOURCE_DIR, cls.checkout)
        cls.addClassCleanup(cls.launch, "down")
        cls.launch("up", timeout=2400)

    @classmethod
    def launch(cls, *arguments, **options):
        return command("launch/containers.sh", *arguments, cwd=cls.checkout, **options)

    def containers(self):
        return command("docker", "ps", "--filter", f"label=com.docker.compose.project={PROJECT}", "--format",
                       "{{.Names}}").split()

    def test_1_result_is_that_of_one_host_and_the_callers(self):
        run = self.checkout / "run/words-4096"
        facts = read_run(run)
        self.assertEqual([1, 1, 1], facts["layout"]["ranks_per_node"])
        self.assertEqual("converged", facts["summary"]["termination"])
        for path in (run.parent, run, *run.iterdir()):
            self.assertEqual((os.getuid(), os.getgid()), (path.stat().st_uid, path.stat().st_gid), path)
        x = self.single_x()
        np.testing.assert_allclose(np.load(run / "x.npy"), x, rtol=0, atol=1e-12 * np.linalg.norm(x))

    def image(self):
        return f"attnreg:{os.getuid()}"

    def single_x(self):
        """The same solve by one rank in one container."""
        bytes_of_x = subprocess.run(
            ["docker", "run", "--rm", "-v", f"{WORDS[0].parent}:/data:ro", self.image(), "sh", "-c",
             "attnreg solve /data/A.npy /data/b.npy --weight 1e-4 -q -o run > /dev/null && cat run/x.npy"],
            stdout=subprocess.PIPE, check=True, timeout=60).stdout
        path = self.checkout / "single.npy"
        path.write_bytes(bytes_of_x)
        return np.load(path)

    def test_2_ranks_are_on_different_hosts(self):
        page = self.launch("run", "doctor", "--json")
        page = json.loads(page[page.index("{"):])
        self.assertEqual(3, len({rank["host"] for rank in page["ranks"]}))
        self.assertEqual({"user"}, {rank["user"] for rank in page["ranks"]})
        self.assertTrue(page["self_test"]["right"])

    def test_3_image_has_no_compiler_no_root_and_the_size_of_the_guide(self):
        found = command("docker", "run", "--rm", self.image(), "sh", "-c",
                        "id -u; find / -xdev -name 'ssh_host_*' -o -xdev -name 'id_*' -path '*ssh*' 2>/dev/null; "
                        "command -v g++ gcc cc c++ ld as make cmake; true").split()
        self.assertEqual([str(os.getuid() or 1000)], found)
        megabytes = int(command("docker", "image", "inspect", "-f", "{{.Size}}", self.image())) / 1e6
        stated = int(re.search(r"(\d+) MB \(\d+ of them Debian", GUIDE.read_text())[1])
        self.assertLess(abs(megabytes - stated), 0.1 * stated)  # packages are updated

    def test_3_no_layer_has_a_private_key(self):
        found, files = private_keys(self.image())
        self.assertEqual([], found)
        self.assertGreater(files, 1000)

    def test_3_planted_key_is_found(self):
        """The search would find a key that the image no longer shows."""
        context = self.checkout / "planted"
        context.mkdir()
        command("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", context / "planted")
        (context / "Dockerfile").write_text(
            f"FROM {self.image()}\nUSER root\nCOPY planted /root/\nRUN rm /root/planted\n")
        image = f"{PROJECT}-planted"
        command("docker", "build", "-q", "-t", image, context)
        self.addCleanup(command, "docker", "image", "rm", image)
        self.assertEqual(["root/planted"], private_keys(image)[0])

    def test_3_host_keys_are_checked(self):
        head = next(name for name in self.containers() if "head" in name)

        def ssh(options, code):
            return command("docker", "exec", head, "sh", "-c", f"ssh -n {options} $(sed -n '2s/ .*//p' hosts) hostname",
                           code=code)

        self.assertNotEqual("", ssh("", code=0))
        self.assertIn("Host key verification failed", ssh("-o UserKnownHostsFile=/dev/null", code=255))
        # Another host that answers under a worker's name: the key that is known of it is not the one it shows.
        command("docker", "exec", head, "sh", "-c",
                'other=$(cut -d" " -f1,2 /run/attnreg-ssh/id.pub) && '
                'while read -r host rest; do echo "$host $other"; done < /run/attnreg-ssh/known_hosts > /tmp/other')
        self.assertIn("Host key verification failed", ssh("-o UserKnownHostsFile=/tmp/other", code=255))

    def test_4_node_is_killed(self):
        run = self.checkout / "run/words-4096"
        before = (run / "x.npy").read_bytes()
        job = subprocess.Popen(["launch/containers.sh", "run", "solve", "/data/words-4096/A.npy",
                                "/data/words-4096/b.npy", "--starts", "100000", "--quiet", "--force", "-o",
                                "run/words-4096"], cwd=self.checkout, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                               text=True, env={**os.environ, "COMPOSE_PROJECT_NAME": PROJECT, "ATTNREG_TIMEOUT": "120"})
        history = run / "history.partial.csv"  # beside the results of the run before
        wait_until(lambda: read_state(run) == "running" and history.exists() and history.stat().st_size > 1000,
                   "the job runs")
        workers = [name for name in self.containers() if "worker" in name]
        begin = time.monotonic()
        command("docker", "kill", workers[0])
        output, _ = job.communicate(timeout=60)
        seconds = time.monotonic() - begin
        print(f"code {job.returncode} {seconds:.1f} s after the kill ... ", end="", flush=True)
        self.assertNotIn(job.returncode, (0, 124, 137), output)
        self.assertLess(seconds, 30)
        for name in self.containers():
            wait_until(lambda name=name: "attnreg\n" not in command("docker", "exec", name, "sh", "-c",
                                                                    "cat /proc/[0-9]*/comm"), f"{name} is free")
        self.assertEqual(before, (run / "x.npy").read_bytes())

    def test_4_tests_of_the_command_line_pass_in_the_image(self):
        self.assertIn("The tests passed", self.launch("test", timeout=2400))

    def test_5_guide(self):
        for _, text in blocks("containers"):
            command("bash", "-euc", text, cwd=self.checkout, timeout=2400)
        self.assertEqual([], self.containers())


def start_docker():
    require("docker", "dockerd", "git")
    if not (shutil.which("docker-compose") or subprocess.run(["docker", "compose", "version"],
                                                              stderr=subprocess.DEVNULL).returncode == 0):
        skip("neither docker compose nor docker-compose")
    if subprocess.run([DOCKERD, "up"]).returncode != 0:
        skip("no Docker daemon answers, and none can be started")


if __name__ == "__main__":
    start_docker()
    try:
        run_tests()
    finally:
        subprocess.run([DOCKERD, "down"])
