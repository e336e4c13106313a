"""Three hosts on one machine: where ranks run, the same result, faults, the scripts that go by ssh."""

import json
import time
import unittest

from checkout import PROGRAM, SOLVE_WORDS, WORDS, CheckoutTest, blocks, read_run, read_state
from hosts import PATIENCE_SECONDS, Hosts, enter_box, require, run_tests, wait_until

HOSTS = None
WORKERS = ("w1", "w2")


def mpirun(*arguments, ranks=3):
    slots = -(-ranks // len(HOSTS.names))
    return ["mpirun", "-n", ranks, "--host", ",".join(f"{name}:{slots}" for name in HOSTS.names), "--map-by", "node",
            PROGRAM, *arguments]


class HostsTest(CheckoutTest):
    def test_ranks_are_on_different_hosts(self):
        page = HOSTS.run("head", *mpirun("doctor", "--json", ranks=6))
        ranks = json.loads(page[page.index("{"):])["ranks"]
        self.assertEqual(["head", "w1", "w2"] * 2, [rank["host"] for rank in ranks])
        # Ranks of a host read each other's memory; a rank of another host would not be found.
        self.assertEqual({""}, {rank["copy_error"] for rank in ranks})

    def test_same_result_as_on_one_host(self):
        x = self.solve_here(ranks=3)
        sent = HOSTS.bytes_sent("w1")
        HOSTS.run("head", *mpirun(*SOLVE_WORDS, "-o", self.directory / "run"))
        run = self.assert_same_x(x, self.directory / "run", ranks=3)
        self.assertEqual([1, 1, 1], run["layout"]["ranks_per_node"])
        # About 100 sums, of 2 d to 2 d^2 doubles; a quarter of a megabyte is left if only the Hessian's are counted.
        self.assertGreater(HOSTS.bytes_sent("w1") - sent, 250_000)


class FaultTest(CheckoutTest):
    """A long job on three hosts and a fault: it ends in seconds, not with 0; nothing is left of it; the result that was
    there before is there still."""

    def check(self, fault, seconds):
        run = self.directory / "run"
        HOSTS.run("head", *mpirun(*SOLVE_WORDS, "-o", run))
        earlier = {name: (run / name).read_bytes() for name in ("x.npy", "run.json")}
        job = HOSTS.start("head", *mpirun(*SOLVE_WORDS, "--starts", "100000", "--force", "-o", run))
        history = run / "history.partial.csv"
        wait_until(lambda: read_state(run) == "running" and history.exists() and history.stat().st_size > 1000,
                   "the job runs")
        begin = time.monotonic()
        fault()
        output, _ = job.communicate(timeout=PATIENCE_SECONDS)
        self.assertNotEqual(0, job.returncode, output)
        self.assertLess(time.monotonic() - begin, seconds, output)
        wait_until(lambda: not any(HOSTS.processes(host, name) for host in HOSTS.names for name in ("attnreg", "orted")),
                   10, "no process is left")
        self.assertEqual(earlier, {name: (run / name).read_bytes() for name in earlier})
        self.assertEqual("running", read_state(run))
        self.assertEqual([], list(run.glob("*.tmp.*")))

    def test_rank_is_killed(self):
        self.check(lambda: HOSTS.kill("w1", "attnreg"), seconds=15)

    def test_host_dies(self):
        self.check(lambda: HOSTS.kill("w2"), seconds=15)

    def test_link_is_cut(self):
        def fault():
            HOSTS.cut("w1")

        # Keepalive: 3 s, and 3 probes of 1 s. What runs on w1 notices as late.
        self.check(fault, seconds=25)
        HOSTS.heal("w1")


class SshTest(CheckoutTest):
    ssh = None

    @classmethod
    def setUpClass(cls):
        cls.ssh = HOSTS.start_sshd()

    def setUp(self):
        super().setUp()
        (self.directory / "hosts").write_text("# two workers\n" + "".join(f"{name} slots=1\n" for name in WORKERS))

    def run_here(self, *command, code=0, **variables):
        return HOSTS.run("head", *command, cwd=self.directory, code=code,
                         environment={"ATTNREG_SSH": self.ssh, **variables})

    def test_hostfile(self):
        x = self.solve_here(ranks=2)
        self.run_here("launch/hostfile.sh", "hosts", *SOLVE_WORDS, "-o", "run")
        run = self.assert_same_x(x, self.directory / "run", ranks=2)
        self.assertEqual([1, 1], run["layout"]["ranks_per_node"])

    def test_hostfile_refuses_unknown_host_keys(self):
        output = self.run_here("launch/hostfile.sh", "hosts", "doctor", code=1,
                               ATTNREG_SSH=self.ssh.replace("-F /dev/null", "-F /dev/null -o UserKnownHostsFile=/dev/null"))
        self.assertIn("Host key verification failed", output)

    def test_hostfile_refuses_lines_without_slots(self):
        (self.directory / "hosts").write_text("w1 slots=1\nw2\n")
        self.assertIn("expected NAME slots=RANKS", self.run_here("launch/hostfile.sh", "hosts", "doctor", code=2))

    def test_hostfile_refuses_another_program(self):
        other = self.directory / "attnreg"
        other.write_text(f"#!/bin/sh\n[ \"$(hostname)\" = w2 ] && echo attnreg 0.0.1 || exec {PROGRAM} \"$@\"\n")
        other.chmod(0o755)
        output = self.run_here("launch/hostfile.sh", "hosts", "doctor", code=1, ATTNREG=str(other))
        self.assertIn("On w2 the program does not run, or is another one", output)

    def test_jobscript_ssh(self):
        arguments = " ".join(map(str, [*SOLVE_WORDS, "-o", "run"]))
        self.run_here(PROGRAM, "jobscript", "ssh", "--rows", 4096, "--cols", 100, "--ranks", 2, "--cores-per-node", 1,
                      "--hosts", "w1,w2", "--arguments", arguments, "-o", "job.sh")
        self.run_here("./job.sh")
        self.assertEqual([1, 1], read_run(self.directory / "run")["layout"]["ranks_per_node"])

    def test_pbs_script(self):
        """Under the variables that PBS sets; there is no PBS in Debian."""
        (self.directory / "nodes").write_text("w1\nw2\n")
        words = f"solve {WORDS[0]} {WORDS[1]} --weight 1e-4 -o run"
        self.run_here("launch/pbs.sh", PBS_O_WORKDIR=str(self.directory), PBS_NODEFILE=str(self.directory / "nodes"),
                      ATTNREG_ARGUMENTS=words, ATTNREG=str(PROGRAM), OMPI_MCA_plm_rsh_agent=self.ssh)
        self.assertEqual([1, 1], read_run(self.directory / "run")["layout"]["ranks_per_node"])

    def test_jobscript_pbs(self):
        (self.directory / "nodes").write_text("w1\nw2\n")
        arguments = " ".join(map(str, [*SOLVE_WORDS, "-o", "run"]))
        self.run_here(PROGRAM, "jobscript", "pbs", "--rows", 4096, "--cols", 100, "--ranks", 2, "--cores-per-node", 1,
                      "--arguments", arguments, "-o", "job.sh")
        self.run_here("./job.sh", PBS_O_WORKDIR=str(self.directory), PBS_NODEFILE=str(self.directory / "nodes"),
                      OMPI_MCA_plm_rsh_agent=self.ssh)
        self.assertEqual([1, 1], read_run(self.directory / "run")["layout"]["ranks_per_node"])

    def test_guide(self):
        commands = blocks("ssh")
        self.assertTrue(commands)
        for _, text in commands:
            self.run_here("bash", "-euc", text)
        self.assertTrue((self.directory / "run/hosts/x.npy").exists())


if __name__ == "__main__":
    require("mpirun", "unshare", "nsenter", "ip", "sshd", "ssh", "ssh-keygen", root=True)
    enter_box()
    HOSTS = Hosts("head", *WORKERS)
    run_tests()
