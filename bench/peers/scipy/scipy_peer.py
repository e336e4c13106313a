#!/usr/bin/env python3
"""SciPy: L-BFGS-B, trust-ncg, trust-krylov, trust-exact.

usage: scipy_peer.py DIR [--method lbfgs|trust-ncg|trust-krylov|trust-exact] [--rtol 1e-10] [--time-limit 60]
                     [--x0 FILE] [--out FILE]

A and A^T are multiplied by NumPy or scipy.sparse: two reads of A for value and gradient, two for a Hessian product.
SciPy is given L / |g(0)|: trust-krylov has absolute thresholds. OMP_NUM_THREADS says how many threads BLAS has.
"""
import argparse
import json
import os
import resource
import time

import numpy as np
import scipy.sparse
from scipy.optimize import minimize


class Stop(Exception):
    """Thrown out of SciPy: the gradient is small enough, or the time is over."""


class Objective:
    """L and its derivatives; all about the last point is kept."""

    def __init__(self, A, b, w):
        self.A, self.b, self.w_squared = A, b, w * w
        self.sparse = scipy.sparse.issparse(A)
        self.At = A.T.tocsr() if self.sparse else A.T  # CSR of A^T is faster than the transpose of a CSR matrix
        self.evaluations = self.hessian_products = self.hessians = 0
        self.reads = 0.0
        self.x = self.D = None
        self.reference = None

    def start(self, rtol, time_limit):
        """Finds |g(0)|, forgets the point, starts the clock."""
        self.evaluate(np.zeros(self.A.shape[1]))
        self.reference = float(np.linalg.norm(self.g))
        self.x = None
        self.evaluations, self.reads = 0, 0.0
        self.rtol, self.best_gradient_norm, self.levels = rtol, np.inf, []
        self.begin = time.perf_counter()
        self.end = self.begin + time_limit

    def evaluate(self, x):
        if self.x is not None and np.array_equal(x, self.x):
            return
        z = self.A @ x
        f = np.exp(z - z.max())
        f /= f.sum()
        residual = f - self.b
        self.s = f @ residual
        penalty = self.w_squared * z
        self.value = 0.5 * (residual @ residual) + 0.5 * (penalty @ z)
        r = f * residual
        r -= self.s * f
        r += penalty
        self.g = self.At @ r
        self.x, self.f, self.residual, self.D = x.copy(), f, residual, None
        self.evaluations += 1
        self.reads += 2
        if self.reference is not None:
            self.record()

    def record(self):
        gradient_norm = float(np.linalg.norm(self.g))
        seconds = time.perf_counter() - self.begin
        while len(self.levels) < 12 and gradient_norm <= 10.0 ** -(len(self.levels) + 1) * self.reference:
            self.levels.append([len(self.levels) + 1, round(seconds, 4), self.reads])
        if gradient_norm < self.best_gradient_norm:
            self.best_gradient_norm, self.best_value, self.best_x = gradient_norm, self.value, self.x
        if gradient_norm <= self.rtol * self.reference:
            raise Stop("converged")
        self.check_time()

    def check_time(self):
        if time.perf_counter() > self.end:
            raise Stop("time limit")

    def value_and_gradient(self, x):
        self.evaluate(x)
        return self.value / self.reference, self.g / self.reference

    def prepare_hessian(self, x):
        self.evaluate(x)
        if self.D is not None:
            return
        v = (self.f + self.residual) * self.f
        self.t = 3 * (self.f @ self.f) - 2 * (self.f @ self.b)
        self.D = v - self.s * self.f + self.w_squared
        products = self.At @ np.stack([self.f, v], axis=1)  # makes the low-rank part a matter of d-vectors
        self.Af, self.Av = products[:, 0].copy(), products[:, 1].copy()
        self.reads += 1

    def hessian_product(self, x, p):
        self.check_time()
        self.prepare_hessian(x)
        u = self.A @ p
        u *= self.D
        y = self.At @ u
        self.reads += 2
        self.hessian_products += 1
        fp, vp = self.Af @ p, self.Av @ p
        return (y - self.Av * fp - self.Af * (vp - self.t * fp)) / self.reference

    def hessian(self, x):
        self.check_time()
        self.prepare_hessian(x)
        if self.sparse:
            H = (self.At @ self.A.multiply(self.D[:, None]).tocsr()).toarray()
        else:
            H = self.dense_gram()
        self.reads += 1
        self.hessians += 1
        cross = np.outer(self.Av, self.Af)
        H += self.t * np.outer(self.Af, self.Af) - cross - cross.T
        return (0.5 / self.reference) * (H + H.T)

    def dense_gram(self):
        n, d = self.A.shape
        H = np.zeros((d, d))
        rows = max(256, (1 << 21) // d)
        buffer = np.empty((rows, d))
        for i in range(0, n, rows):
            block = self.A[i:i + rows]
            scaled = buffer[: block.shape[0]]
            np.multiply(block, self.D[i:i + rows, None], out=scaled)
            H += block.T @ scaled
        return H


def load(directory):
    b, w = np.load(directory + "/b.npy"), np.load(directory + "/w.npy")
    if os.path.exists(directory + "/A.npy"):
        return np.load(directory + "/A.npy"), b, w
    parts = [np.load(f"{directory}/A_{part}.npy") for part in ("data", "indices", "indptr")]
    d = np.load(directory + "/x_true.npy", mmap_mode="r").shape[0]
    return scipy.sparse.csr_matrix(tuple(parts), shape=(b.shape[0], d)), b, w


def solve(objective, method, x0, callback):
    many = 10 ** 7
    if method == "lbfgs":
        return minimize(objective.value_and_gradient, x0, jac=True, method="L-BFGS-B", callback=callback,
                        options=dict(maxcor=20, ftol=0, gtol=0, maxfun=many, maxiter=many, maxls=50))
    hessian = dict(hess=objective.hessian) if method == "trust-exact" else dict(hessp=objective.hessian_product)
    return minimize(objective.value_and_gradient, x0, jac=True, method=method, callback=callback, **hessian,
                    options=dict(gtol=0.5 * objective.rtol, maxiter=many, max_trust_radius=1e12))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("directory")
    parser.add_argument("--method", default="lbfgs", choices=["lbfgs", "trust-ncg", "trust-krylov", "trust-exact"])
    parser.add_argument("--rtol", type=float, default=1e-10)
    parser.add_argument("--time-limit", type=float, default=60)
    parser.add_argument("--x0")
    parser.add_argument("--out")
    options = parser.parse_args()

    begin = time.perf_counter()
    objective = Objective(*load(options.directory))
    n, d = objective.A.shape
    x0 = np.load(options.x0) if options.x0 else np.zeros(d)
    load_seconds = time.perf_counter() - begin

    iterations = 0

    def count(*_):
        nonlocal iterations
        iterations += 1

    objective.start(options.rtol, options.time_limit)
    cpu_begin = time.process_time()
    try:
        result = solve(objective, options.method, x0, count)
        status = "stalled: " + str(result.message)
    except Stop as stop:
        status = str(stop)
    except (np.linalg.LinAlgError, ValueError, FloatingPointError) as error:
        status = "stalled: " + str(error)
    seconds = time.perf_counter() - objective.begin
    relative = objective.best_gradient_norm / objective.reference
    if options.out:
        np.save(options.out, objective.best_x)
    print(json.dumps(dict(
        peer="scipy-" + options.method, status=status, ranks=1, threads=int(os.environ.get("OMP_NUM_THREADS", 0)),
        rows=n, columns=d, iterations=iterations, evaluations=objective.evaluations,
        hessian_products=objective.hessian_products, hessians=objective.hessians, reads_of_a=objective.reads,
        load_seconds=load_seconds, seconds=seconds, cpu_seconds=time.process_time() - cpu_begin,
        value=float(objective.best_value), gradient_norm=objective.best_gradient_norm,
        gradient_reference=objective.reference, relative_gradient=relative, best_relative_gradient=relative,
        peak_memory_mb=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, levels=objective.levels)))


if __name__ == "__main__":
    main()
