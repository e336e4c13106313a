#pragma once

#include <mpi.h>

#include <Eigen/Dense>
#include <cmath>
#include <memory>
#include <random>
#include <string>

#include "losses/losses.hpp"
#include "objective/regression_objective.hpp"

namespace attnreg::reference {

using Real = long double;
using RealVector = Eigen::Matrix<Real, Eigen::Dynamic, 1>;
using RealMatrix = Eigen::Matrix<Real, Eigen::Dynamic, Eigen::Dynamic>;

/// A small dense problem on one rank, its derivatives by the definition in extended precision, and the objective under
/// test.
struct CertifiedProblem {
  std::string loss = "softmax";
  RowMajorMatrix A;
  Eigen::VectorXd b, w;

  RealVector fitted(const RealVector& x) const {
    const RealVector z = A.cast<Real>() * x;
    const RealVector e = (z.array() - z.maxCoeff()).exp();
    return e / e.sum();
  }

  bool grows() const { return loss != "softmax" && loss != "cross-entropy"; }
  bool is_rescaled() const { return loss.starts_with("rescaled-"); }

  /// u and v = u' of the losses that grow.
  void grow(const RealVector& z, RealVector& u, RealVector& v) const {
    const RealVector up = z.array().exp(), down = (-z).array().exp(), sum = (up + down) / 2,
                     difference = z.array().sinh();
    const std::string name = is_rescaled() ? loss.substr(9) : loss;
    u = name == "exp" ? up : name == "cosh" ? sum : difference;
    v = name == "exp" ? up : name == "cosh" ? difference : sum;
  }

  /// The derivatives of phi in z.
  void differentiate(const RealVector& x, RealVector& q, RealMatrix& B) const {
    if (grows()) {
      RealVector u, v;
      grow(A.cast<Real>() * x, u, v);
      const RealVector t = b.cast<Real>();
      const RealVector r = is_rescaled() ? RealVector(u - u.sum() * t) : RealVector(u - t);
      const RealVector eta = is_rescaled() ? RealVector(r.array() - t.dot(r)) : r, vt = v.cwiseProduct(t);
      q = v.cwiseProduct(eta);
      B = RealVector(v.cwiseAbs2() + u.cwiseProduct(eta)).asDiagonal();
      if (is_rescaled()) B += t.squaredNorm() * v * v.transpose() - v * vt.transpose() - vt * v.transpose();
      return;
    }
    const RealVector f = fitted(x), target = b.cast<Real>();
    const RealMatrix J = RealMatrix(f.asDiagonal()) - f * f.transpose();
    if (loss == "cross-entropy") {
      q = target.sum() * f - target;
      B = target.sum() * J;
      return;
    }
    const RealVector c = f - target;
    q = J * c;
    const RealVector p = f.cwiseProduct(f + c);
    B = RealMatrix(RealVector(p - f.dot(c) * f).asDiagonal()) - p * f.transpose() - f * p.transpose() +
        (3 * f - 2 * target).dot(f) * f * f.transpose();
  }

  RealVector gradient(const RealVector& x) const {
    RealVector q;
    RealMatrix B;
    differentiate(x, q, B);
    const RealVector wz = w.cast<Real>().cwiseAbs2().cwiseProduct(A.cast<Real>() * x);
    return A.cast<Real>().transpose() * (q + wz);
  }

  RealMatrix hessian(const RealVector& x) const {
    RealVector q;
    RealMatrix B;
    differentiate(x, q, B);
    B.diagonal() += w.cast<Real>().cwiseAbs2();
    return A.cast<Real>().transpose() * B * A.cast<Real>();
  }

  /// Newton's method with the exact Hessian from nearby; where it ends.
  RealVector polish(RealVector x) const {
    Real last = 1e300L;
    for (int k = 0; k < 60; ++k) {
      const RealVector step = hessian(x).ldlt().solve(gradient(x));
      x -= step;
      const bool at_rounding = last <= 1e-15L * x.norm() && step.norm() >= last;
      last = step.norm();
      if (last == 0 || at_rounding) break;
    }
    return x;
  }
};

/// Random problems from flat to peaked f, with targets on and off the simplex.
class ProblemSource {
 public:
  explicit ProblemSource(unsigned seed) : random_(seed) {}

  double normal() { return normal_(random_); }
  double uniform(double from, double to) { return from + (to - from) * uniform_(random_); }
  double log_uniform(double from, double to) { return std::exp(uniform(std::log(from), std::log(to))); }
  int integer(int from, int to) { return static_cast<int>(std::floor(uniform(from, to + 1))); }
  Eigen::VectorXd normals(Eigen::Index size) {
    return Eigen::VectorXd::NullaryExpr(size, [&] { return normal(); });
  }

  /// For losses that grow: moderate logits, and targets that u reaches, hardly reaches, and does not reach.
  CertifiedProblem next_growing(const std::string& loss, double smallest_w, double largest_w) {
    CertifiedProblem problem = next("softmax", smallest_w, largest_w);
    problem.loss = loss;
    const Eigen::Index n = problem.A.rows(), d = problem.A.cols();
    problem.A *= log_uniform(0.3, 3) / std::sqrt(static_cast<double>(d) * problem.A.cwiseAbs2().mean());
    RealVector u, v;
    problem.grow(problem.A.cast<Real>() * normals(d).cast<Real>(), u, v);
    problem.b = u.cast<double>();
    if (problem.is_rescaled()) problem.b /= std::abs(problem.b.sum()) > 0.1 ? problem.b.sum() : 1;
    const int kind = integer(0, 3);
    if (kind == 1) problem.b = problem.b.cwiseProduct((0.3 * normals(n)).array().exp().matrix());
    if (kind == 2) problem.b = problem.b.mean() * normals(n);
    if (kind == 3) problem.b = Eigen::VectorXd::Unit(n, integer(0, static_cast<int>(n) - 1));
    return problem;
  }

  CertifiedProblem next(const std::string& loss, double smallest_w, double largest_w) {
    const Eigen::Index n = integer(2, 40), d = integer(1, static_cast<int>(std::min<Eigen::Index>(5, n)));
    CertifiedProblem problem{loss, RowMajorMatrix(n, d), {}, {}};
    const double scale = log_uniform(0.1, 5), offset = normal();
    for (Eigen::Index i = 0; i < n; ++i) problem.A.row(i) = (scale * normals(d)).array() + offset;
    problem.b = target(problem, integer(0, loss == "softmax" ? 3 : 2));
    problem.w = Eigen::VectorXd::NullaryExpr(n, [&] { return log_uniform(smallest_w, largest_w); });
    return problem;
  }

 private:
  Eigen::VectorXd target(const CertifiedProblem& problem, int kind) {
    const Eigen::Index n = problem.A.rows();
    if (kind == 0) return problem.fitted(normals(problem.A.cols()).cast<Real>()).cast<double>();
    Eigen::VectorXd b = normals(n).array().exp();
    b /= b.sum();
    if (kind == 1) b = Eigen::VectorXd::Unit(n, integer(0, static_cast<int>(n) - 1));
    if (kind == 3) b = normals(n) / static_cast<double>(n);
    return b;
  }

  std::mt19937_64 random_;
  std::normal_distribution<double> normal_;
  std::uniform_real_distribution<double> uniform_;
};

/// A problem as the library holds it; the problem must outlive it.
struct Instance {
  explicit Instance(const CertifiedProblem& problem)
      : communicator(MPI_COMM_SELF),
        A(communicator, RowPartition::from_local(communicator, problem.A.rows()), problem.A),
        objective(std::make_unique<RegressionObjective>(A, problem.b, problem.w, make_loss(problem.loss))) {}

  Communicator communicator;
  RowMatrix A;
  std::unique_ptr<RegressionObjective> objective;
};

}  // namespace attnreg::reference
