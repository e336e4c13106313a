#include "support/reference.hpp"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <random>
#include <utility>

#include "rows/row_passes.hpp"

namespace attnreg::reference {

namespace {

/// exp, cosh and sinh regression, and the same rescaled, as docs/algorithms.md has them.
Evaluation evaluate_growing(const Problem& problem, const Vector& Ax, const Vector& z, const Matrix& A, const Vector& b,
                            const Vector& w2) {
  const bool rescaled = problem.loss.starts_with("rescaled-");
  const std::string name = rescaled ? problem.loss.substr(9) : problem.loss;
  const Vector growing = z.array().exp(), falling = (-z.array()).exp();
  const Vector cosh = (growing + falling) / 2, sinh = z.unaryExpr([](Real t) { return std::sinh(t); });
  const Vector u = name == "exp" ? growing : name == "cosh" ? cosh : sinh;
  const Vector v = name == "exp" ? growing : name == "cosh" ? sinh : cosh;

  Evaluation result;
  const Real alpha = u.sum();
  const Vector r = rescaled ? Vector(u - alpha * b) : Vector(u - b);
  const Vector eta = rescaled ? Vector(r.array() - b.dot(r)) : r;
  const Vector squares = v.cwiseAbs2();
  result.f = rescaled ? Vector(u / alpha) : u;
  result.value = r.squaredNorm() / 2 + w2.dot(Ax.cwiseAbs2()) / 2;
  result.gradient = A.transpose() * (v.cwiseProduct(eta) + w2.cwiseProduct(Ax));
  result.gauss_newton = A.transpose() * (squares + w2).asDiagonal() * A;
  if (rescaled) {
    const Vector Av = A.transpose() * v, Avb = A.transpose() * v.cwiseProduct(b);
    result.gauss_newton += b.squaredNorm() * Av * Av.transpose() - Av * Avb.transpose() - Avb * Av.transpose();
  }
  result.hessian = result.gauss_newton + A.transpose() * u.cwiseProduct(eta).asDiagonal() * A;
  return result;
}

}  // namespace

Evaluation evaluate(const Problem& problem, const VectorXd& at) {
  const Matrix A = problem.A.cast<Real>();
  const Vector x = at.cast<Real>(), Ax = A * x;
  Vector b = problem.b.cast<Real>(), w2 = problem.w.cast<Real>().cwiseAbs2(), z = Ax;
  for (Index i = 0; i < problem.offset.size(); ++i) {
    z[i] += problem.offset[i];
    if (problem.offset[i] == -std::numeric_limits<double>::infinity()) b[i] = w2[i] = 0, z[i] = -1e4L;  // exp(z) = 0
  }
  if (problem.loss != "softmax" && problem.loss != "cross-entropy") return evaluate_growing(problem, Ax, z, A, b, w2);
  const Real largest = z.maxCoeff(), sum = (z.array() - largest).exp().sum();
  const Vector f = (z.array() - largest).exp() / sum;
  const Vector centre = A.transpose() * f;

  Evaluation result;
  result.f = f;
  const Real ridge = w2.dot(Ax.cwiseAbs2()) / 2;
  if (problem.loss == "softmax") {
    const Vector c = f - b, p = f.cwiseProduct(2 * f - b);
    const Real gamma = f.dot(c), kappa = (3 * f - 2 * b).dot(f);
    const Vector q = f.cwiseProduct(c) - gamma * f;
    const Vector Ap = A.transpose() * p;
    result.value = c.squaredNorm() / 2 + ridge;
    result.gradient = A.transpose() * (q + w2.cwiseProduct(Ax));
    result.hessian = A.transpose() * (p - gamma * f + w2).asDiagonal() * A;
    result.hessian += -Ap * centre.transpose() - centre * Ap.transpose() + kappa * centre * centre.transpose();
    const Matrix centred = A.rowwise() - centre.transpose();
    result.gauss_newton = centred.transpose() * f.cwiseAbs2().asDiagonal() * centred;
    result.gauss_newton += A.transpose() * w2.asDiagonal() * A;
  } else {
    const Real s = b.sum();
    result.value = s * (largest + std::log(sum)) - b.dot(z) + ridge;
    result.gradient = A.transpose() * (s * f - b + w2.cwiseProduct(Ax));
    result.hessian = A.transpose() * (s * f + w2).asDiagonal() * A;
    result.hessian -= s * centre * centre.transpose();
    result.gauss_newton = result.hessian;
  }
  return result;
}

VectorXd to_double(const Vector& v) { return v.cast<double>(); }

RowMajorMatrix random_matrix(Index rows, Index columns, std::uint64_t seed) {
  std::mt19937_64 engine(seed);
  std::normal_distribution<double> normal;
  return RowMajorMatrix::NullaryExpr(rows, columns, [&] { return normal(engine); });
}
VectorXd random_vector(Index size, std::uint64_t seed) { return random_matrix(size, 1, seed); }

VectorXd softmax(const RowMajorMatrix& A, const VectorXd& x) {
  return to_double(evaluate({A, VectorXd::Zero(A.rows()), VectorXd::Zero(A.rows())}, x).f);
}

Problem random_problem(Index rows, Index columns, double scale, double weight, std::uint64_t seed) {
  Problem problem;
  problem.A = scale * random_matrix(rows, columns, seed);
  const VectorXd noise = random_vector(rows, seed + 1);
  problem.b = softmax(problem.A, random_vector(columns, seed + 2)).array() * (1 + 0.1 * noise.array());
  problem.b /= problem.b.sum();
  problem.w = VectorXd::Constant(rows, weight);
  return problem;
}

RowPartition make_partition(Layout layout, std::int64_t rows, Index columns, int ranks) {
  if (layout == Layout::tiled) return RowPartition::tiled(rows, columns, ranks);
  std::vector<std::int64_t> first_rows{0};
  std::mt19937_64 engine(static_cast<std::uint64_t>(rows));
  for (int rank = 1; rank < ranks; ++rank) {
    std::int64_t first = 0;
    if (layout == Layout::even) first = rows * rank / ranks;
    if (layout == Layout::random) first = std::uniform_int_distribution<std::int64_t>(first_rows.back(), rows)(engine);
    first_rows.push_back(first);
  }
  first_rows.push_back(rows);
  return RowPartition(first_rows);
}

VectorXd local_part(const RowMatrix& A, const VectorXd& v) { return v.segment(A.first_row(), A.rows_local()); }

CsrRows sparse_rows(const RowMajorMatrix& dense, bool single) {
  CsrRows rows;
  rows.columns = dense.cols();
  rows.is_single = single;
  for (Index i = 0; i < dense.rows(); ++i) {
    for (Index j = 0; j < dense.cols(); ++j) {
      if (dense(i, j) == 0) continue;
      rows.indices.push_back(static_cast<std::int32_t>(j));
      if (single)
        rows.singles.push_back(static_cast<float>(dense(i, j)));
      else
        rows.values.push_back(dense(i, j));
    }
    rows.offsets.push_back(static_cast<std::int64_t>(rows.indices.size()));
  }
  return rows;
}

// 8 bits, above 6e-8 and below 65504.
RowMajorMatrix rounded_for_all(const RowMajorMatrix& A) {
  return A.cast<Eigen::bfloat16>().cast<Eigen::half>().cast<double>();
}

RowMatrix distribute(const Communicator& communicator, const RowMajorMatrix& A, Layout layout, Holding holding) {
  const auto partition = make_partition(layout, A.rows(), A.cols(), communicator.size());
  const auto first = static_cast<Index>(partition.begin(communicator.rank()));
  const Index count = partition.rows_local(communicator.rank());
  if (holding == Holding::view) return RowMatrix::view(communicator, partition, A.data() + first * A.cols(), A.cols());
  if (holding == Holding::float32)
    return RowMatrix(communicator, partition, RowMajorMatrixFloat(A.middleRows(first, count).cast<float>()));
  if (holding == Holding::float16)
    return RowMatrix(communicator, partition, RowMajorMatrixHalf(A.middleRows(first, count).cast<Eigen::half>()));
  if (holding == Holding::bfloat16)
    return RowMatrix(communicator, partition,
                     RowMajorMatrixBfloat16(A.middleRows(first, count).cast<Eigen::bfloat16>()));
  if (holding == Holding::sparse64 || holding == Holding::sparse32)
    return RowMatrix(communicator, partition, sparse_rows(A.middleRows(first, count), holding == Holding::sparse32));
  return RowMatrix(communicator, partition, RowMajorMatrix(A.middleRows(first, count)));
}

Distributed distribute(const Communicator& communicator, const Problem& problem, Layout layout, Holding holding) {
  RowMatrix A = distribute(communicator, problem.A, layout, holding);
  VectorXd b = local_part(A, problem.b), w = local_part(A, problem.w);
  std::shared_ptr<const VectorXd> offset;
  if (problem.offset.size() > 0) offset = std::make_shared<const VectorXd>(local_part(A, problem.offset));
  return {std::move(A), std::move(b), std::move(w), std::move(offset)};
}

VectorXd gather(const Communicator& communicator, const VectorXd& local) {
  const auto all = communicator.all_gather(span_of(local));
  return Eigen::Map<const VectorXd>(all.data(), static_cast<Index>(all.size()));
}

RowMajorMatrix gathered_rows(const RowMatrix& A) {
  VectorXd mine(A.rows_local() * A.columns());
  std::vector<Index> rows(static_cast<std::size_t>(A.rows_local()));
  std::iota(rows.begin(), rows.end(), Index{0});
  A.passes().visit_rows(rows, [&](std::size_t k, std::span<const double> row) {
    std::copy(row.begin(), row.end(), mine.data() + static_cast<Index>(k) * A.columns());
  });
  const VectorXd values = gather(A.communicator(), mine);
  return Eigen::Map<const RowMajorMatrix>(values.data(), values.size() / A.columns(), A.columns());
}

}  // namespace attnreg::reference
