#include "sparsify/whitening.hpp"
#include "rows/row_passes.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "algebra/dense_factors.hpp"
#include "errors/refuse.hpp"
#include "numbers/exact_sum.hpp"

namespace attnreg {

namespace {

using Eigen::MatrixXd;

/// Collective. A bound on sum_i |a_ij a_ik| that does not depend on the distribution.
double bound_of_sums(const RowMatrix& A) {
  struct Largest {
    double value = 0;
    Largest& operator+=(const Largest& other) {
      value = std::max(value, other.value);
      return *this;
    }
  };
  const Largest mine = A.passes().pass(
      Largest{}, [](const Tile& tile, Largest& part) { part += Largest{tile.dense().cwiseAbs().maxCoeff()}; });
  const double largest = A.communicator().max(mine.value);
  const double bound = largest * largest * static_cast<double>(A.rows_global());
  if (!(bound < 0x1p1000))
    refuse("X has an entry of size " + std::to_string(largest) + ": X X^T would overflow, scale X down");
  return bound;
}

/// Makes the products of a row with itself, lower triangle row by row.
void row_products(const double* row, Index n, double* products) {
  for (Index i = 0; i < n; ++i) {
    for (Index j = 0; j <= i; ++j) products[j] = row[i] * row[j];
    products += i + 1;
  }
}

}  // namespace

MatrixXd exact_gram(const RowMatrix& A) {
  const Index n = A.columns(), size = n * (n + 1) / 2;
  const ExactSum zero(size, bound_of_sums(A), std::max<std::int64_t>(A.rows_global(), 1));
  ExactSum sum = A.passes().pass(zero, [&](const Tile& tile, ExactSum& part) {
    const auto rows = tile.dense();
    std::vector<double> products(static_cast<std::size_t>(size));
    for (Index i = 0; i < tile.rows(); ++i) {
      row_products(rows.row(i).data(), n, products.data());
      part.add(products);
    }
  });
  sum.reduce(A.communicator());
  const Eigen::VectorXd sums = sum.values();
  if (!sums.allFinite()) refuse("X has values that are not finite");
  MatrixXd K(n, n);
  for (Index i = 0, first = 0; i < n; first += ++i)
    K.row(i).head(i + 1) = K.col(i).head(i + 1).transpose() = sums.segment(first, i + 1).transpose();
  return K;
}

MatrixXd whitening_of(const MatrixXd& K, std::int64_t terms) {
  const Index n = K.rows();
  SymmetricEigen eigen = symmetric_eigen(K, true);
  if (!eigen.finite || !(eigen.values[n - 1] > 0)) return MatrixXd(n, 0);
  const double size = static_cast<double>(n) + std::sqrt(static_cast<double>(terms));
  const double threshold = 4 * std::numeric_limits<double>::epsilon() * size * eigen.values[n - 1];
  const auto null = std::upper_bound(eigen.values.begin(), eigen.values.end(), threshold) - eigen.values.begin();
  return eigen.vectors.rightCols(n - null) * eigen.values.tail(n - null).cwiseSqrt().cwiseInverse().asDiagonal();
}

}  // namespace attnreg
