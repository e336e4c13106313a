"""Several hosts on one machine, without containers: namespaces that a bridge joins.

A host is a network, UTS, mount and IPC namespace: a name, an address and a /dev/shm of its own. The bridge is in a
namespace too, so no packet leaves the machine and its network stays as it is. Open MPI tells hosts by their names: it
uses TCP between them. All of it is inside a box, a PID namespace whose processes end with the test.
"""

import os
import pathlib
import shlex
import signal
import subprocess
import sys
import time
import unittest

SKIPPED = 77  # what ctest counts as skipped
PATIENCE_SECONDS = 180  # for what takes seconds on an idle machine: beyond it something hangs
STATE = pathlib.Path("/run/attnreg-hosts")  # /run is private in the box
# In the namespaces of a host: its name, the table of all names, an empty /dev/shm.
SET_UP_HOST = (f'hostname "$1"; mount --bind {STATE}/hosts /etc/hosts; '
               'mount -t tmpfs -o size=256m,mode=1777 shm /dev/shm; shift; exec "$@"')


def skip(reason):
    """Ends the whole test file, loudly."""
    print(f"SKIPPED: {sys.argv[0]}: {reason}", flush=True)
    sys.exit(SKIPPED)


def run_tests():
    """unittest.main(), but a file with a test that was skipped counts as skipped for ctest, loudly."""
    result = unittest.main(verbosity=2, exit=False).result
    for test, reason in result.skipped:
        print(f"SKIPPED: {test.id()}: {reason}", flush=True)
    sys.exit(1 if not result.wasSuccessful() else SKIPPED if result.skipped else 0)


def require(*programs, root=False):
    """Skips unless all programs are there."""
    path = os.environ["PATH"] = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"
    missing = [program for program in programs
               if not any(os.access(f"{place}/{program}", os.X_OK) for place in path.split(":"))]
    if missing:
        skip(f"not installed: {', '.join(missing)}; launch/packages.sh has the lists of packages")
    if root and os.geteuid() != 0:
        skip("needs root")


def enter_box():
    """Starts this program again in namespaces of its own."""
    if os.environ.get("ATTNREG_TEST_BOX") == "inside":
        subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", "/run"], check=True)
        subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
        return
    box = ["unshare", "--mount", "--net", "--uts", "--pid", "--fork", "--kill-child", "--mount-proc"]
    if subprocess.run([*box, "true"], stderr=subprocess.DEVNULL).returncode != 0:
        skip("no namespaces can be made here")
    os.environ["ATTNREG_TEST_BOX"] = "inside"
    os.execvp(box[0], [*box, sys.executable, "-B", *sys.argv])


def is_alive(pid):
    """A zombie counts as ended: nobody may be there to wait for it."""
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def name_of(pid):
    """The program of a process; none if it has ended."""
    try:
        return pathlib.Path(f"/proc/{pid}/comm").read_text().strip()
    except (FileNotFoundError, ProcessLookupError):
        return None


def wait_until(condition, what, facts=lambda: ""):
    """facts: more to say where it was in vain."""
    end = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        if time.monotonic() > end:
            raise AssertionError(f"not within {PATIENCE_SECONDS} s: {what}{facts()}")
        time.sleep(0.05)


class Hosts:
    """The hosts `names`, the first of them the head, at NET.1, NET.2, ..."""

    def __init__(self, *names, net="10.77.0"):
        self.names = names
        self.addresses = {name: f"{net}.{k}" for k, name in enumerate(names, start=1)}
        (STATE / "tmp").mkdir(parents=True)
        (STATE / "tmp").chmod(0o1777)
        (STATE / "hosts").write_text("127.0.0.1 localhost\n" + "".join(
            f"{address} {name}\n" for name, address in self.addresses.items()))
        self._ip("netns add switch")
        self._ip("-n switch link add bridge type bridge forward_delay 0")
        self._ip("-n switch link set bridge up")
        for name, address in self.addresses.items():
            self._ip(f"netns add {name}")
            self._ip(f"-n switch link add port-{name} type veth peer name eth0 netns {name}")
            self._ip(f"-n switch link set port-{name} master bridge up")
            self._ip(f"-n {name} addr add {address}/24 dev eth0")
            self._ip(f"-n {name} link set lo up")
            self._ip(f"-n {name} link set eth0 up")
        # What Open MPI calls in place of ssh: rsh HOST COMMAND...
        self.agent = STATE / "rsh"
        self.agent.write_text("#!/bin/sh\nhost=$1\nshift\nexec nsenter --net=/run/netns/$host unshare --uts --mount --ipc -- "
                              f"/bin/sh -c '{SET_UP_HOST}' sh \"$host\" /bin/sh -c \"$*\"\n")
        self.agent.chmod(0o755)

    @staticmethod
    def _ip(arguments):
        subprocess.run(["ip", *arguments.split()], check=True)

    @staticmethod
    def _enter(name):
        # nsenter, not `ip netns exec`: that mounts another /sys, without control groups, and slurmd refuses to start.
        return ["nsenter", f"--net=/run/netns/{name}", "unshare", "--uts", "--mount", "--ipc", "--", "/bin/sh", "-c",
                SET_UP_HOST, "sh", name]

    def environment(self, **more):
        """Files that killed ranks leave behind stay in the box; a link that is cut is noticed in 7 s."""
        return {**os.environ, "OMPI_MCA_orte_tmpdir_base": str(STATE / "tmp"), "OMPI_MCA_plm_rsh_agent": str(self.agent),
                "OMPI_MCA_oob_tcp_keepalive_time": "3", "OMPI_MCA_oob_tcp_keepalive_intvl": "1",
                "OMPI_MCA_oob_tcp_keepalive_probes": "3", **more}

    def start(self, host, *command, **options):
        """A process on the host; its stdout and stderr are one pipe."""
        environment = self.environment(**options.pop("environment", {}))
        return subprocess.Popen([*self._enter(host), *map(str, command)], stdout=subprocess.PIPE,
                                stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, text=True, env=environment, **options)

    def run(self, host, *command, timeout=PATIENCE_SECONDS, code=0, **options):
        """The output of a command that must end with `code`."""
        process = self.start(host, *command, **options)
        try:
            output, _ = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            process.kill()
            raise AssertionError(f"no end after {timeout} s: {command}\n{process.communicate()[0]}") from None
        if process.returncode != code:
            raise AssertionError(f"code {process.returncode}, expected {code}: {command}\n{output}")
        return output

    def processes(self, host, name=None):
        """The living processes on a host; with a name only those of that program."""
        listed = subprocess.run(["ip", "netns", "pids", host], stdout=subprocess.PIPE, text=True).stdout.split()
        pids = [int(pid) for pid in listed if is_alive(pid)]
        return [pid for pid in pids if name is None or name_of(pid) == name]

    def kill(self, host, name=None):
        """All processes of a host at once, as if its power were lost; or those of one program."""
        for pid in self.processes(host, name):
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass

    def cut(self, host):
        self._ip(f"-n switch link set port-{host} down")

    def heal(self, host):
        self._ip(f"-n switch link set port-{host} up")
        wait_until(lambda: self._answers(host), f"{host} answers again")

    def _answers(self, host):
        """Whether the head can talk to it: nobody listens at port 9, so an answer is a refusal."""
        connect = ("import socket, sys\ntry:\n    socket.create_connection((sys.argv[1], 9), 1)\n"
                   "except ConnectionRefusedError:\n    pass\n")
        process = self.start(self.names[0], sys.executable, "-c", connect, self.addresses[host])
        process.communicate()
        return process.returncode == 0

    def bytes_sent(self, host):
        for line in self.run(host, "cat", "/proc/net/dev").splitlines():
            if line.strip().startswith("eth0:"):
                return int(line.split()[9])
        raise AssertionError(f"{host} has no eth0")

    def start_sshd(self):
        """A real sshd on every host, with keys made here; returns the ssh command that knows them."""
        keys = STATE / "ssh"
        keys.mkdir(mode=0o700)
        pathlib.Path("/run/sshd").mkdir(exist_ok=True)
        make_key = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f"]
        subprocess.run([*make_key, keys / "id"], check=True)
        with open(keys / "known_hosts", "w") as known:
            for host in self.names:
                subprocess.run([*make_key, keys / host], check=True)
                key = " ".join((keys / f"{host}.pub").read_text().split()[:2])
                known.write(f"{host} {key}\n")
                self.run(host, "/usr/sbin/sshd", "-f", "/dev/null", "-o", f"HostKey={keys / host}", "-o",
                         f"AuthorizedKeysFile={keys / 'id.pub'}", "-o", "StrictModes=no", "-o", "UsePAM=no", "-o",
                         "PidFile=none", "-E", keys / f"{host}.log")
        return (f"ssh -F /dev/null -i {keys / 'id'} -o UserKnownHostsFile={keys / 'known_hosts'} -o BatchMode=yes "
                "-o StrictHostKeyChecking=yes -o IdentitiesOnly=yes -o LogLevel=ERROR")
