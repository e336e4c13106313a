#pragma once

#include <Eigen/Core>
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <fstream>
#include <limits>
#include <nlohmann/json.hpp>
#include <numeric>
#include <random>
#include <span>
#include <string>
#include <vector>

#include "attnreg/row_matrix.hpp"
#include "rows/row_passes.hpp"

/// What the tests compare with: whole problems in one process, formulas as they stand in the papers, in long double.
namespace attnreg::reference {

using Eigen::VectorXd;
using Real = long double;
using Vector = Eigen::Matrix<Real, Eigen::Dynamic, 1>;
using Matrix = Eigen::Matrix<Real, Eigen::Dynamic, Eigen::Dynamic>;

inline constexpr double eps = std::numeric_limits<double>::epsilon();

/// L(x) = phi(A x) + 1/2 |diag(w) A x|^2.
struct Problem {
  RowMajorMatrix A;
  VectorXd b, w;
  std::string loss = "softmax";
};

struct Evaluation {
  Real value = 0;
  Vector gradient;
  Matrix hessian, gauss_newton;
  Vector f;  ///< what is to reproduce b
};

/// exp, cosh and sinh regression, and the same rescaled, as docs/algorithms.md has them.
inline Evaluation evaluate_growing(const Problem& problem, const Vector& z, const Matrix& A, const Vector& b,
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
  result.value = r.squaredNorm() / 2 + w2.dot(z.cwiseAbs2()) / 2;
  result.gradient = A.transpose() * (v.cwiseProduct(eta) + w2.cwiseProduct(z));
  result.gauss_newton = A.transpose() * (squares + w2).asDiagonal() * A;
  if (rescaled) {
    const Vector Av = A.transpose() * v, Avb = A.transpose() * v.cwiseProduct(b);
    result.gauss_newton += b.squaredNorm() * Av * Av.transpose() - Av * Avb.transpose() - Avb * Av.transpose();
  }
  result.hessian = result.gauss_newton + A.transpose() * u.cwiseProduct(eta).asDiagonal() * A;
  return result;
}

/// Value, gradient and Hessian in the uncentred form: Hess_z phi = diag(D) + U S U^T, spelled out.
inline Evaluation evaluate(const Problem& problem, const VectorXd& at) {
  const Matrix A = problem.A.cast<Real>();
  const Vector x = at.cast<Real>(), b = problem.b.cast<Real>(), w2 = problem.w.cast<Real>().cwiseAbs2(), z = A * x;
  if (problem.loss != "softmax" && problem.loss != "cross-entropy") return evaluate_growing(problem, z, A, b, w2);
  const Real largest = z.maxCoeff(), sum = (z.array() - largest).exp().sum();
  const Vector f = (z.array() - largest).exp() / sum;
  const Vector centre = A.transpose() * f;

  Evaluation result;
  result.f = f;
  const Real ridge = w2.dot(z.cwiseAbs2()) / 2;
  if (problem.loss == "softmax") {
    const Vector c = f - b, p = f.cwiseProduct(2 * f - b);
    const Real gamma = f.dot(c), kappa = (3 * f - 2 * b).dot(f);
    const Vector q = f.cwiseProduct(c) - gamma * f;
    const Vector Ap = A.transpose() * p;
    result.value = c.squaredNorm() / 2 + ridge;
    result.gradient = A.transpose() * (q + w2.cwiseProduct(z));
    result.hessian = A.transpose() * (p - gamma * f + w2).asDiagonal() * A;
    result.hessian += -Ap * centre.transpose() - centre * Ap.transpose() + kappa * centre * centre.transpose();
    const Matrix centred = A.rowwise() - centre.transpose();
    result.gauss_newton = centred.transpose() * f.cwiseAbs2().asDiagonal() * centred;
    result.gauss_newton += A.transpose() * w2.asDiagonal() * A;
  } else {
    const Real s = b.sum();
    result.value = s * (largest + std::log(sum)) - b.dot(z) + ridge;
    result.gradient = A.transpose() * (s * f - b + w2.cwiseProduct(z));
    result.hessian = A.transpose() * (s * f + w2).asDiagonal() * A;
    result.hessian -= s * centre * centre.transpose();
    result.gauss_newton = result.hessian;
  }
  return result;
}

inline VectorXd to_double(const Vector& v) { return v.cast<double>(); }

inline std::span<const double> span_of(const VectorXd& v) { return {v.data(), static_cast<std::size_t>(v.size())}; }

/// Standard normal entries; the same on all ranks.
inline RowMajorMatrix random_matrix(Index rows, Index columns, std::uint64_t seed) {
  std::mt19937_64 engine(seed);
  std::normal_distribution<double> normal;
  return RowMajorMatrix::NullaryExpr(rows, columns, [&] { return normal(engine); });
}
inline VectorXd random_vector(Index size, std::uint64_t seed) { return random_matrix(size, 1, seed); }

/// softmax(A x).
inline VectorXd softmax(const RowMajorMatrix& A, const VectorXd& x) {
  return to_double(evaluate({A, VectorXd::Zero(A.rows()), VectorXd::Zero(A.rows())}, x).f);
}

/// Normal A with `scale`, b = softmax(A x_true) with 10 % noise, constant w.
inline Problem random_problem(Index rows, Index columns, double scale, double weight, std::uint64_t seed) {
  Problem problem;
  problem.A = scale * random_matrix(rows, columns, seed);
  const VectorXd noise = random_vector(rows, seed + 1);
  problem.b = softmax(problem.A, random_vector(columns, seed + 2)).array() * (1 + 0.1 * noise.array());
  problem.b /= problem.b.sum();
  problem.w = VectorXd::Constant(rows, weight);
  return problem;
}

/// A vector file: the whole JSON, and the problem and x in it.
struct Case {
  nlohmann::json json;
  Problem problem;
  VectorXd x;
};

inline VectorXd vector_of(const nlohmann::json& list) {
  const auto values = list.get<std::vector<double>>();
  return Eigen::Map<const VectorXd>(values.data(), static_cast<Index>(values.size()));
}

inline RowMajorMatrix matrix_of(const nlohmann::json& lists) {
  RowMajorMatrix matrix(static_cast<Index>(lists.size()), static_cast<Index>(lists[0].size()));
  for (std::size_t i = 0; i < lists.size(); ++i) matrix.row(static_cast<Index>(i)) = vector_of(lists[i]).transpose();
  return matrix;
}

inline Case read_case(const std::string& path) {
  std::ifstream file(path);
  Case result;
  result.json = nlohmann::json::parse(file);
  std::string loss = result.json["problem"];
  std::replace(loss.begin(), loss.end(), '_', '-');
  result.problem = {matrix_of(result.json["A"]), vector_of(result.json["b"]), vector_of(result.json["w"]), loss};
  result.x = vector_of(result.json["x"]);
  return result;
}

/// How n rows are spread over the ranks.
enum class Layout { tiled, even, all_on_last, random };
inline constexpr Layout layouts[] = {Layout::tiled, Layout::even, Layout::all_on_last, Layout::random};

inline RowPartition make_partition(Layout layout, std::int64_t rows, Index columns, int ranks) {
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

/// This rank's part of a problem.
struct Distributed {
  RowMatrix A;
  VectorXd b, w;
};

inline VectorXd local_part(const RowMatrix& A, const VectorXd& v) { return v.segment(A.first_row(), A.rows_local()); }

/// Owned rows in double or float, dense or without their zeros, or (double) rows of `A` itself, which must then outlive
/// the result.
enum class Holding { float64, float32, view, sparse64, sparse32 };

inline CsrRows sparse_rows(const RowMajorMatrix& dense, bool single) {
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

inline RowMatrix distribute(const Communicator& communicator, const RowMajorMatrix& A, Layout layout,
                            Holding holding = Holding::float64) {
  const auto partition = make_partition(layout, A.rows(), A.cols(), communicator.size());
  const auto first = static_cast<Index>(partition.begin(communicator.rank()));
  const Index count = partition.rows_local(communicator.rank());
  if (holding == Holding::view) return RowMatrix::view(communicator, partition, A.data() + first * A.cols(), A.cols());
  if (holding == Holding::float32) {
    const Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor> rows =
        A.middleRows(first, count).cast<float>();
    return RowMatrix(communicator, partition, rows);
  }
  if (holding == Holding::sparse64 || holding == Holding::sparse32)
    return RowMatrix(communicator, partition, sparse_rows(A.middleRows(first, count), holding == Holding::sparse32));
  return RowMatrix(communicator, partition, RowMajorMatrix(A.middleRows(first, count)));
}

inline Distributed distribute(const Communicator& communicator, const Problem& problem, Layout layout = Layout::tiled,
                              Holding holding = Holding::float64) {
  RowMatrix A = distribute(communicator, problem.A, layout, holding);
  VectorXd b = local_part(A, problem.b), w = local_part(A, problem.w);
  return {std::move(A), std::move(b), std::move(w)};
}

/// Collective. The ranks' rows of a vector, one after another.
inline VectorXd gather(const Communicator& communicator, const VectorXd& local) {
  const auto all = communicator.all_gather(span_of(local));
  return Eigen::Map<const VectorXd>(all.data(), static_cast<Index>(all.size()));
}

/// Collective. The rows of all ranks, on every rank.
inline RowMajorMatrix gathered_rows(const RowMatrix& A) {
  VectorXd mine(A.rows_local() * A.columns());
  std::vector<Index> rows(static_cast<std::size_t>(A.rows_local()));
  std::iota(rows.begin(), rows.end(), Index{0});
  A.passes().visit_rows(rows, [&](std::size_t k, std::span<const double> row) {
    std::copy(row.begin(), row.end(), mine.data() + static_cast<Index>(k) * A.columns());
  });
  const VectorXd values = gather(A.communicator(), mine);
  return Eigen::Map<const RowMajorMatrix>(values.data(), values.size() / A.columns(), A.columns());
}

/// Collective. The sum over the ranks of a matrix or vector.
template <class Dense>
Dense summed(const Communicator& communicator, Dense part) {
  communicator.sum({part.data(), static_cast<std::size_t>(part.size())});
  return part;
}

}  // namespace attnreg::reference
