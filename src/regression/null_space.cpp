#include "regression/null_space.hpp"

#include <algorithm>
#include <cmath>
#include <vector>

#include "algebra/dense_factors.hpp"
#include "ranks/span_of.hpp"
#include "rows/gram.hpp"
#include "rows/row_passes.hpp"

namespace attnreg {

namespace {

/// Eigenvectors of a symmetric G >= 0 whose eigenvalues are rounding beside the largest one.
MatrixXd null_vectors(const MatrixXd& G, double tolerance) {
  const SymmetricEigen eigen = symmetric_eigen(G, true);
  if (!eigen.finite) return MatrixXd(G.rows(), 0);
  const double limit = tolerance * std::max(eigen.values.maxCoeff(), 0.0);
  return eigen.vectors.leftCols((eigen.values.array() <= limit).count());
}

}  // namespace

NullSpace null_space(RegressionObjective& objective) {
  constexpr double kNull = 1e-13;      // of eigenvalues of columns of norm 1
  constexpr double kNoWeight = 1e-12;  // of the regulariser's largest one
  const RowMatrix& A = objective.A();
  const auto& communicator = A.communicator();
  const Eigen::Index d = A.columns();
  const VectorXd& mean = objective.columns().mean();  // of the rows that are not masked
  const OnStop on_stop = on_stop_in_gram(A);
  MatrixXd gram =
      signed_gram(A, {objective.unmasked_rows()}, objective.loss().is_shift_invariant() ? mean : VectorXd(), on_stop)
          .positive;
  communicator.sum_to_root(span_of(gram));
  const MatrixXd& ridge = objective.ridge_gram_on_root(on_stop);
  NullSpace result{MatrixXd(d, 0), objective.columns().scale()};
  if (is_left(A, on_stop)) return result;
  VectorXd message = VectorXd::Zero(1 + d * d);
  if (communicator.is_root()) {
    const auto inverse = result.scale.cwiseInverse().asDiagonal();
    MatrixXd V = null_vectors(inverse * gram * inverse, kNull * static_cast<double>(d));
    const MatrixXd weighted = inverse * ridge * inverse;
    if (V.cols() > 0 && weighted.norm() > 0) {
      const MatrixXd of_V = V.transpose() * weighted * V;
      const SymmetricEigen eigen = symmetric_eigen(of_V, true);
      const double limit = kNoWeight * weighted.diagonal().maxCoeff();
      V = eigen.finite ? MatrixXd(V * eigen.vectors.leftCols((eigen.values.array() <= limit).count())) : MatrixXd(d, 0);
    }
    message[0] = static_cast<double>(V.cols());
    message.segment(1, V.size()) = V.reshaped();
  }
  communicator.broadcast(span_of(message));
  const auto k = static_cast<Eigen::Index>(message[0]);
  result.directions = message.segment(1, d * k).reshaped(d, k);
  return result;
}

VectorXd NullSpace::projected(const VectorXd& x) const {
  VectorXd y = x.cwiseProduct(scale);
  for (int twice = 0; twice < 2; ++twice) y -= directions * (directions.transpose() * y);
  return y.cwiseQuotient(scale);
}

std::string NullSpace::text() const {
  constexpr double kTakesPart = 1e-6;
  constexpr std::size_t kNamed = 12;
  std::vector<Eigen::Index> columns;
  for (Eigen::Index j = 0; j < directions.rows(); ++j)
    if (directions.row(j).norm() > kTakesPart) columns.push_back(j);
  const Eigen::Index count = directions.cols();
  std::string text = "L does not see " + std::to_string(count) + (count == 1 ? " direction" : " directions") +
                     " of x, among the columns ";
  for (std::size_t k = 0; k < std::min(kNamed, columns.size()); ++k)
    text += (k == 0 ? "" : ", ") + std::to_string(columns[k]);
  if (columns.size() > kNamed) text += " and " + std::to_string(columns.size() - kNamed) + " more";
  return text + ": of all x with this L the least is given, in columns of equal size";
}

}  // namespace attnreg
