#include "heads/whitening.hpp"

#include <algorithm>
#include <vector>

#include "algebra/blas_products.hpp"
#include "algebra/dense_factors.hpp"
#include "algebra/pivoted_factor.hpp"
#include "ranks/span_of.hpp"

namespace attnreg {

using Eigen::MatrixXd;

namespace {

constexpr double kDependentColumn = 1e-10;  // of a squared norm; data in float32 give 1e-14, real heads 1e-5 and more

/// An orthonormal basis of the null space of a Gram matrix: v_q = 1, v_p = -G_pp^-1 G_pq for a dependent column q.
MatrixXd null_basis(const MatrixXd& gram, const PivotedFactor& factor, const MatrixXd& inverse) {
  const Index d = gram.rows();
  std::vector<Index> dependent;
  for (Index j = 0; j < d; ++j)
    if (std::ranges::find(factor.pivots, j) == factor.pivots.end()) dependent.push_back(j);
  if (dependent.empty()) return MatrixXd(d, 0);
  MatrixXd columns(d, std::ssize(dependent)), basis = MatrixXd::Zero(d, std::ssize(dependent));
  for (Index k = 0; k < columns.cols(); ++k) {
    columns.col(k) = gram.col(dependent[static_cast<std::size_t>(k)]);
    basis(dependent[static_cast<std::size_t>(k)], k) = 1;
  }
  basis -= times(inverse, transposed_times(inverse, columns));
  return orthonormal_columns(std::move(basis));
}

}  // namespace

MatrixXd Whitening::coordinates(const MatrixXd& P) const { return transposed_times(W, times(gram, P)); }

Whitening whitening(const Communicator& communicator, MatrixXd gram) {
  Whitening result;
  double k = 0;
  if (communicator.is_root()) {
    PivotedFactor factor = regular_cholesky(gram, kDependentColumn);
    if (!factor.finite) factor = pivoted_cholesky(gram, kDependentColumn);
    if (factor.finite && factor.rank() > 0) {
      result.W = factor.inverse();
      result.null_directions = null_basis(gram, factor, result.W);
      if (result.null_directions.cols() > 0)
        result.W -= times(result.null_directions, transposed_times(result.null_directions, result.W));
      if (result.W.allFinite() && result.null_directions.allFinite()) k = static_cast<double>(result.W.cols());
    }
  }
  communicator.broadcast({&k, 1});
  result.W.resize(gram.rows(), static_cast<Index>(k));
  result.null_directions.resize(gram.rows(), gram.rows() - result.W.cols());
  communicator.broadcast(span_of(result.W));
  communicator.broadcast(span_of(result.null_directions));
  result.gram = std::move(gram);
  return result;
}

}  // namespace attnreg
