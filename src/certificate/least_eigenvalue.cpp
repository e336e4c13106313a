#include "certificate/least_eigenvalue.hpp"

#include <Eigen/Eigenvalues>
#include <algorithm>
#include <cmath>
#include <limits>

#include "numbers/random.hpp"
#include "ranks/span_of.hpp"

namespace attnreg {

namespace {

using Eigen::Index;
using Eigen::MatrixXd;
using Eigen::VectorXd;

constexpr int kFirstLook = 8;  // steps before the first look at the tridiagonal matrix, and between looks

/// The tridiagonal matrix of k steps: its eigenvalues, and what they say.
struct Ritz {
  VectorXd values, least_vector;
  double residual;  // of the least one
};

Ritz ritz(const VectorXd& diagonal, const VectorXd& below, Index k) {
  Eigen::SelfAdjointEigenSolver<MatrixXd> eigen;
  eigen.computeFromTridiagonal(diagonal.head(k), below.head(k - 1));
  const VectorXd least = eigen.eigenvectors().col(0);
  return {eigen.eigenvalues(), least, std::abs(below[k - 1] * least[k - 1])};
}

}  // namespace

LeastEigenvalue least_eigenvalue(const SymmetricOperator& H, const LanczosOptions& options) {
  LeastEigenvalue result;
  const Index most = std::min<Index>(options.most_steps, H.dimension);
  if (most < 1) return result;
  MatrixXd V(H.size, most + 1);
  VectorXd diagonal(most), below(most), start(H.size);
  RandomStream(options.seed, Purpose::eigenvalue_start).normals(0, span_of(start));
  start = H.project(start);
  if (!(start.norm() > 0)) return result;
  V.col(0) = start.normalized();
  for (Index k = 0; k < most; ++k) {
    VectorXd next = H.project(H.product(V.col(k)));
    if (!next.allFinite()) return result;
    diagonal[k] = V.col(k).dot(next);
    for (int twice = 0; twice < 2; ++twice) next -= V.leftCols(k + 1) * (V.leftCols(k + 1).transpose() * next);
    below[k] = next.norm();
    result.steps = static_cast<int>(k) + 1;
    const double size = std::max(diagonal.head(k + 1).cwiseAbs().maxCoeff(), below.head(k + 1).maxCoeff());
    result.is_complete = k + 1 == H.dimension || !(below[k] > options.rounding * size);
    if (result.is_complete || k + 1 == most || (k + 1) % kFirstLook == 0) {
      const Ritz found = ritz(diagonal, below, k + 1);
      result.is_finite = found.values.allFinite();
      result.value = found.values[0];
      result.residual = k + 1 == H.dimension ? 0 : found.residual;
      result.largest = found.values.cwiseAbs().maxCoeff();
      const double noise = options.rounding * result.largest;
      const bool before = result.is_settled;
      result.is_settled = result.residual <= options.relative * std::abs(result.value) ||
                          (result.residual <= noise && std::abs(result.value) <= noise);
      const bool enough = result.is_settled && before && H.dimension > options.complete_up_to;
      if (result.is_complete || enough || k + 1 == most) {
        result.vector = V.leftCols(k + 1) * found.least_vector;
        result.is_settled = result.is_settled || result.is_complete;
        break;
      }
    }
    V.col(k + 1) = next / below[k];
  }
  return result;
}

}  // namespace attnreg
