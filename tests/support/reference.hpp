#pragma once

#include <Eigen/Core>
#include <array>
#include <cstdint>
#include <limits>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "attnreg/row_matrix.hpp"

/// What the tests compare with: whole problems in one process, formulas as they stand in the papers, in long double.
/// Compiled once: what Eigen makes of these formulas takes a compiler many seconds.
namespace attnreg::reference {

using Eigen::VectorXd;
using Real = long double;
using Vector = Eigen::Matrix<Real, Eigen::Dynamic, 1>;
using Matrix = Eigen::Matrix<Real, Eigen::Dynamic, Eigen::Dynamic>;

inline constexpr double eps = std::numeric_limits<double>::epsilon();

/// L(x) = phi(A x + offset) + 1/2 |diag(w) A x|^2; rows with an offset of -infinity have no part in it.
struct Problem {
  RowMajorMatrix A;
  VectorXd b, w;
  std::string loss = "softmax";
  VectorXd offset{};  ///< empty: 0
};

struct Evaluation {
  Real value = 0;
  Vector gradient;
  Matrix hessian, gauss_newton;
  Vector f;  ///< what is to reproduce b
};

/// Value, gradient and Hessian in the uncentred form: Hess_z phi = diag(D) + U S U^T, spelled out.
Evaluation evaluate(const Problem& problem, const VectorXd& at);

VectorXd to_double(const Vector& v);

inline std::span<const double> span_of(const VectorXd& v) { return {v.data(), static_cast<std::size_t>(v.size())}; }

/// Standard normal entries; the same on all ranks.
RowMajorMatrix random_matrix(Index rows, Index columns, std::uint64_t seed);
VectorXd random_vector(Index size, std::uint64_t seed);

/// softmax(A x).
VectorXd softmax(const RowMajorMatrix& A, const VectorXd& x);

/// Normal A with `scale`, b = softmax(A x_true) with 10 % noise, constant w.
Problem random_problem(Index rows, Index columns, double scale, double weight, std::uint64_t seed);

/// How n rows are spread over the ranks.
enum class Layout { tiled, even, all_on_last, random };
inline constexpr Layout layouts[] = {Layout::tiled, Layout::even, Layout::all_on_last, Layout::random};

RowPartition make_partition(Layout layout, std::int64_t rows, Index columns, int ranks);

/// This rank's part of a problem.
struct Distributed {
  RowMatrix A;
  VectorXd b, w;
  std::shared_ptr<const VectorXd> offset{};
};

VectorXd local_part(const RowMatrix& A, const VectorXd& v);

/// Owned rows in double or float, dense or without their zeros, or (double) rows of `A` itself, which must then outlive
/// the result.
enum class Holding { float64, float32, float16, bfloat16, view, sparse64, sparse32 };
inline constexpr std::array dense_holdings{Holding::float64, Holding::float32, Holding::float16, Holding::bfloat16};
inline constexpr std::array holdings{Holding::float64, Holding::float32,  Holding::float16, Holding::bfloat16,
                                     Holding::view,    Holding::sparse64, Holding::sparse32};

/// Numbers that every type of these has.
RowMajorMatrix rounded_for_all(const RowMajorMatrix& A);

CsrRows sparse_rows(const RowMajorMatrix& dense, bool single);

RowMatrix distribute(const Communicator& communicator, const RowMajorMatrix& A, Layout layout,
                     Holding holding = Holding::float64);
Distributed distribute(const Communicator& communicator, const Problem& problem, Layout layout = Layout::tiled,
                       Holding holding = Holding::float64);

/// Collective. The ranks' rows of a vector, one after another.
VectorXd gather(const Communicator& communicator, const VectorXd& local);

/// Collective. The rows of all ranks, on every rank.
RowMajorMatrix gathered_rows(const RowMatrix& A);

/// Collective. The sum over the ranks of a matrix or vector.
template <class Dense>
Dense summed(const Communicator& communicator, Dense part) {
  communicator.sum({part.data(), static_cast<std::size_t>(part.size())});
  return part;
}

}  // namespace attnreg::reference
