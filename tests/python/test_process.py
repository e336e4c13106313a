"""Callbacks, interrupts, threads, memory, and MPI's beginning and end."""

import os
import resource
import signal
import subprocess
import sys
import threading

import numpy as np
import pytest

import attnreg
from conftest import Problem, value


def solve_slowly(problem, callback=None, **options):
    """Some iterations from x = 0."""
    return attnreg.solve(problem.A, problem.b, problem.w, method="newton", start="zero", rtol=1e-12, callback=callback,
                         **options)


def test_callback_sees_each_iteration(problem):
    seen = []
    result = solve_slowly(problem, seen.append)
    assert [step.iteration for step in seen] == list(range(result.nit + 1))
    assert [step.value for step in seen] == result.history.value.tolist()
    assert set(seen[0]) == set(result.history.dtype.names)


@pytest.mark.parametrize("how", ["true", "StopIteration"])
def test_callback_can_stop_it(problem, how):
    def callback(step):
        if step.iteration == 1:
            if how == "true":
                return True
            raise StopIteration
        return None
    result = solve_slowly(problem, callback)
    whole = solve_slowly(problem)
    assert result.termination == "stopped" and not result.success and not result.interrupted and result.status == 4
    assert 1 <= result.nit < whole.nit
    assert result.fun == pytest.approx(value(problem.A, problem.b, result.x, problem.w), rel=1e-9)
    assert whole.fun < result.fun < value(problem.A, problem.b, np.zeros(7), problem.w)
    assert solve_slowly(problem).nit == whole.nit  # the next one knows nothing of it


def test_exception_of_a_callback_is_the_callers(problem):
    def callback(step):
        raise ZeroDivisionError(f"at {step.iteration}")
    with pytest.raises(ZeroDivisionError, match="at 0"):
        solve_slowly(problem, callback)


@pytest.mark.parametrize("function", ["path", "targets", "attention"])
def test_callbacks_of_the_others(problem, function):
    seen = []
    def callback(step):
        seen.append(step)
        return len(seen) > 2
    if function == "path":
        result = attnreg.path(problem.A, problem.b, [1e-2, 1e-3, 1e-4, 1e-5], method="newton", start="zero", rtol=1e-12,
                              callback=callback)
        assert len(result.results) < 4
    elif function == "targets":
        result = attnreg.solve_targets(problem.A, np.column_stack([problem.b, problem.b[::-1]]), problem.w,
                                       method="newton", start="zero", rtol=1e-12, callback=callback)
    else:
        generator = np.random.default_rng(1)
        queries, keys = generator.standard_normal((2, 30, 4))
        target = attnreg.attention_matrix(queries, keys, generator.standard_normal((4, 4)))
        result = attnreg.attention(queries, keys, target, start="zero", callback=callback)
    assert not result.success and result.status == 4 and len(seen) >= 3


def interrupt(step, times=1):
    if step.iteration == 1 and step.phase == "solve":
        for _ in range(times):
            os.kill(os.getpid(), signal.SIGINT)


def test_interrupt_gives_the_best_x(problem):
    result = solve_slowly(problem, interrupt)
    assert result.interrupted and result.termination == "stopped" and "keyboard" in result.message
    assert value(problem.A, problem.b, result.x, problem.w) < value(problem.A, problem.b, np.zeros(7), problem.w)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    with pytest.raises(KeyboardInterrupt):  # Python's own handler is back
        signal.raise_signal(signal.SIGINT)
    assert solve_slowly(problem).success


def test_second_interrupt_is_an_exception(problem):
    with pytest.raises(KeyboardInterrupt):
        solve_slowly(problem, lambda step: interrupt(step, times=2))
    assert solve_slowly(problem).success


def test_handlers_of_the_program_are_its_own(problem):
    calls = []
    before = signal.signal(signal.SIGINT, lambda *_: calls.append(1))
    try:
        assert solve_slowly(problem, interrupt).success and calls == [1]
    finally:
        signal.signal(signal.SIGINT, before)


def test_interrupt_in_the_middle_of_a_long_solve():
    """A child that is interrupted whenever it has begun; it has passes of a few milliseconds."""
    code = """
import sys, numpy as np, attnreg
A = np.random.default_rng(1).standard_normal((40000, 40))
b = np.exp(3 * A[:, 0] + A[:, 1] ** 2); b /= b.sum()
begun = lambda step: print("iteration", flush=True)
result = attnreg.solve(A, b, 1e-7, method="newton", start="zero", starts=100000, callback=begun)
print("ended", result.interrupted, np.isfinite(result.x).all(), result.fun < 1e9)
"""
    child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert child.stdout.readline() == "iteration\n"
    child.send_signal(signal.SIGINT)
    output, _ = child.communicate(timeout=300)
    assert child.returncode == 0 and output.splitlines()[-1] == "ended True True True"


def test_a_callback_may_call_the_package(problem):
    inner = []
    def callback(step):
        inner.append(attnreg.evaluate(problem.A, problem.b, np.zeros(7), problem.w).fun)
    result = solve_slowly(problem, callback)
    assert inner == [pytest.approx(result.history.value[0])] * (result.nit + 1)


def test_two_threads_each_with_a_solve():
    problems = [Problem(n=3000, d=20, seed=seed) for seed in (1, 2)]
    alone = [attnreg.solve(p.A, p.b, p.w) for p in problems]
    for _ in range(5):
        together = [None, None]
        def work(k):
            together[k] = attnreg.solve(problems[k].A, problems[k].b, problems[k].w)
        threads = [threading.Thread(target=work, args=(k,)) for k in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for one, other in zip(alone, together):
            np.testing.assert_array_equal(one.x, other.x)
            assert one.nit == other.nit


def test_python_runs_meanwhile(problem):
    """The lock is free during a solve: another thread has had a turn before a callback lets the solve go on."""
    asked, answered = threading.Event(), threading.Event()
    def other():
        asked.wait()
        answered.set()
    thread = threading.Thread(target=other)
    thread.start()
    def callback(step):
        asked.set()
        assert answered.wait(timeout=60)
    assert solve_slowly(problem, callback).success
    thread.join()


def resident_bytes():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize()


def test_memory_does_not_grow(problem):
    def some(count):
        for _ in range(count):
            attnreg.solve(problem.A, problem.b, problem.w, callback=lambda step: None)
            with pytest.raises(attnreg.DataError):
                attnreg.solve(problem.A, problem.b[1:])
    some(200)
    before = resident_bytes()
    some(1000)
    assert resident_bytes() - before < 4 << 20  # A alone is 33 kB: one copy a solve would be 33 MB


def child(code, **environment):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300,
                          env={**os.environ, **environment})


SOLVE = "import numpy as np, attnreg; r = attnreg.solve(np.eye(4), np.full(4, 0.25)); assert r.success; "


@pytest.mark.parametrize("code", [
    "import attnreg",  # MPI is not started
    SOLVE,
    SOLVE + "from mpi4py import MPI; assert MPI.Is_initialized() and MPI.COMM_WORLD.size == 1",
    "from mpi4py import MPI; " + SOLVE + "attnreg.solve(np.eye(4), np.full(4, 0.25), comm=MPI.COMM_SELF)",
    "import mpi4py; mpi4py.rc.thread_level = 'single'; from mpi4py import MPI; " + SOLVE,
    "import threading; exec('def f():\\n ' + " + repr(SOLVE) + "); t = threading.Thread(target=f); t.start(); t.join()",
    SOLVE + "import os; pid = os.fork(); pid and os.waitpid(pid, 0)",
    SOLVE + "raise SystemExit(0)",
])
def test_mpi_begins_and_ends_by_itself(code):
    done = child(code)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_an_mpirun_can_be_a_child(problem):
    assert solve_slowly(problem).success
    done = subprocess.run(["mpirun", "-n", "2", sys.executable, "-c",
                           "from mpi4py import MPI; c = MPI.COMM_WORLD; c.rank or print(c.size)"],
                          capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "2\n"), done


def test_no_mpi_after_its_end():
    done = child("import numpy as np, attnreg; from mpi4py import MPI; MPI.Finalize(); attnreg.solve(np.eye(2), [1, 0])")
    assert done.returncode == 1 and "DataError: MPI was finalised" in done.stderr
