#include "certificate/separation.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>

#include "algebra/dense_factors.hpp"
#include "ranks/span_of.hpp"
#include "rows/gram.hpp"
#include "rows/row_passes.hpp"

namespace attnreg {

namespace {

constexpr double kRoundingUnit = std::numeric_limits<double>::epsilon();
constexpr double kSmallestGap = 1e-6;  // of the range of A v: rows that fall behind by less are held
constexpr int kRounds = 5;

std::string rows_text(std::int64_t rows) { return std::to_string(rows) + (rows == 1 ? " row" : " rows"); }

class SeparationSearch {
 public:
  SeparationSearch(const RegressionObjective& objective, const VectorXd& candidate)
      : A_(objective.A()),
        passes_(A_.passes()),
        communicator_(A_.communicator()),
        b_(objective.b()),
        loss_(objective.loss().name()),
        offsets_(objective.logit_offsets()),
        v_(candidate),
        held_((b_.array() != 0).cast<double>()),
        fixed_((objective.weights_squared().array() > 0).cast<double>()) {}

  Separation run() {
    if (loss_ != "softmax" && loss_ != "cross-entropy" && loss_ != "rescaled-exp") return result_;
    if (!v_.allFinite() || v_.isZero(0)) return result_;
    v_ /= v_.lpNorm<Eigen::Infinity>();
    count_target();
    if (loss_ == "rescaled-exp") {
      if (fixed_rows_ == 0 && !fits_) look_for_fall();
    } else if (negative_ == 0 && support_ > 0 && support_ < rows_ && fixed_rows_ < rows_) {
      if (loss_ == "cross-entropy" || (fixed_rows_ == 0 && fits_)) look_for_separation();
    }
    return std::move(result_);
  }

 private:
  void count_target();
  void look_for_fall();
  void look_for_separation();
  bool project();
  bool look_at_signs();
  std::int64_t count(const VectorXd& mask) const { return std::llround(communicator_.sum(mask.sum())); }
  double largest_of(const Eigen::ArrayXd& values) const {
    return communicator_.max(values.size() > 0 ? values.maxCoeff() : -std::numeric_limits<double>::infinity());
  }
  bool is_simple() const { return held_rows_ == 1 && fixed_rows_ == 0; }

  const RowMatrix& A_;
  const RowPasses& passes_;
  const Communicator& communicator_;
  const VectorXd& b_;
  std::string_view loss_;
  Separation result_;
  const LogitOffsets& offsets_;
  VectorXd v_, held_, fixed_;  // 1 for rows that are held at equal logits, and at 0
  VectorXd centre_;            // of the held rows
  std::int64_t rows_ = 0;      // that are not masked
  std::int64_t support_ = 0, negative_ = 0, fixed_rows_ = 0, held_rows_ = 0;
  bool fits_ = false;             // <b, 1> = 1 to rounding, and for rescaled-exp b > 0
  double smallest_singular_ = 0;  // of the constraints, where they are independent; else 0
};

void SeparationSearch::count_target() {
  double rows = static_cast<double>(b_.size());
  for (Index i = 0; offsets_.mask_rows() && i < b_.size(); ++i)
    if (offsets_.is_masked(i)) --rows;
  std::array<double, 6> sums{
      held_.sum(), static_cast<double>((b_.array() < 0).count()), fixed_.sum(), b_.sum(), b_.lpNorm<1>(), rows};
  communicator_.sum(sums);
  support_ = std::llround(sums[0]);
  negative_ = std::llround(sums[1]);
  fixed_rows_ = std::llround(sums[2]);
  rows_ = std::llround(sums[5]);
  fits_ = std::abs(sums[3] - 1) <= 1e-12 * std::max(1.0, sums[4]);
  if (loss_ == "rescaled-exp") fits_ = fits_ && negative_ == 0 && support_ == A_.rows_global();
}

/// rescaled-exp: where all logits fall for ever L goes to 0, and it is 0 nowhere if b is not fitted.
void SeparationSearch::look_for_fall() {
  const VectorXd y = passes_.multiply(v_, Compensated());
  const double highest = largest_of(y.array()), size = largest_of(y.array().abs());
  if (!(highest < -kSmallestGap * size)) return;
  result_ = {true,
             v_ / size,
             0,
             A_.rows_global(),
             -highest / size,
             0,
             true,
             "no minimiser exists: the infimum of L is 0, it is approached where all logits go to -infinity, along a "
             "direction, and exp(A x) = <exp(A x), 1> b for no x"};
}

void SeparationSearch::look_for_separation() {
  for (int round = 0; round < kRounds; ++round) {
    held_rows_ = count(held_);
    if (held_rows_ == rows_ || !project() || look_at_signs()) return;
  }
}

/// The part of v that has equal logits on the held rows and none on the fixed ones, in columns of equal size.
bool SeparationSearch::project() {
  smallest_singular_ = 0;
  const Index d = A_.columns();
  const auto apply = [&](const VectorXd& p) {  // the Gram matrix of the constraints, as a product
    VectorXd y, message = passes_.normal_product(p, {held_.data(), fixed_.data(), centre_.dot(p)}, y);
    communicator_.sum(span_of(message));
    return VectorXd(message.head(d) - message[d] * centre_);
  };
  centre_ = passes_.transpose_multiply(held_);
  communicator_.sum(span_of(centre_));
  centre_ /= static_cast<double>(held_rows_);
  if (is_simple()) return true;
  const OnStop on_stop = on_stop_in_gram(A_);
  MatrixXd gram = signed_gram(A_, {held_}, centre_, on_stop).positive;
  if (fixed_rows_ > 0) gram += signed_gram(A_, {fixed_}, {}, on_stop).positive;
  communicator_.sum_to_root(span_of(gram));
  if (is_left(A_, on_stop)) return false;
  VectorXd message = VectorXd::Zero(2 + d + d * d + d);  // rank, smallest; scale; vectors; values
  if (communicator_.is_root()) {
    const VectorXd scale =
        gram.diagonal().unaryExpr([](double square) { return square > 0 ? 1 / std::sqrt(square) : 1.0; });
    const SymmetricEigen eigen = symmetric_eigen(scale.asDiagonal() * gram * scale.asDiagonal(), true);
    if (eigen.finite) {
      const double rounding = 16 * eigenvalue_rounding(d, eigen.values.stableNorm());
      const Index rank = (eigen.values.array() > rounding).count();
      message << static_cast<double>(rank), rank > 0 ? std::sqrt(eigen.values[d - rank]) : 0, scale,
          eigen.vectors.reshaped(), eigen.values;
    }
  }
  communicator_.broadcast(span_of(message));
  const auto rank = static_cast<Index>(message[0]);
  if (rank == d || message[2] == 0) return false;  // nothing but 0 is left; not finite
  const VectorXd scale = message.segment(2, d);
  const MatrixXd range = message.segment(2 + d, d * d).reshaped(d, d).rightCols(rank);
  const VectorXd values = message.tail(d).tail(rank);
  const VectorXd before = v_.cwiseQuotient(scale);
  VectorXd v = before - range * (range.transpose() * before);
  for (int k = 0; k < 2; ++k) {  // by what is left of the constraints
    const VectorXd residual = scale.cwiseProduct(apply(scale.cwiseProduct(v)));
    v -= range * (range.transpose() * residual).cwiseQuotient(values);
  }
  if (!(v.norm() > 1e-8 * before.norm())) return false;
  v_ = scale.cwiseProduct(v);
  v_ /= v_.lpNorm<Eigen::Infinity>();
  if (rank == held_rows_ - 1 + fixed_rows_) smallest_singular_ = message[1] * scale.cwiseInverse().minCoeff();
  return true;
}

/// Whether v separates; if not, the rows that do not fall behind are held from now on.
bool SeparationSearch::look_at_signs() {
  const Eigen::ArrayXd norms = offsets_.without_masked(passes_.row_norms()).array();
  const Eigen::ArrayXd y =  // relative to the held rows
      offsets_.without_masked(passes_.multiply(v_, Compensated{centre_.dot(v_)})).array();
  const double infinity = std::numeric_limits<double>::infinity();
  const auto held = held_.array() > 0, fixed = fixed_.array() > 0;
  const double top = largest_of(held.select(y, -infinity)), bottom = -largest_of(held.select(-y, -infinity));
  const double range = std::max(largest_of(y), top) + largest_of(-y), length = v_.norm();
  const double farthest = largest_of(norms), size = farthest * length;
  double spread = top - bottom;
  if (fixed_rows_ > 0) spread = std::max(spread, largest_of(fixed.select((y + centre_.dot(v_)).abs(), 0.0)));
  const double d = static_cast<double>(A_.columns());
  const double rounding = kRoundingUnit * (4 * range + 16 * std::sqrt(d) * size);
  const Eigen::ArrayXd behind = offsets_.without_masked(held.select(infinity, bottom - y).matrix(), infinity).array();
  const double gap = -largest_of(-behind);
  const double needed = std::max(kSmallestGap * range, 100 * (rounding + spread));
  if (!(range > 100 * rounding) || !(spread <= rounding)) return false;
  if (!(gap > needed)) {
    const Eigen::ArrayXd more = (behind <= needed).cast<double>();
    held_ = held_.array().max(more);
    return false;
  }
  // An exact solution of independent constraints is near.
  const double constraints = static_cast<double>(held_rows_ + fixed_rows_);
  const bool exact = is_simple() || smallest_singular_ * gap >
                                        2 * (farthest + centre_.norm()) * std::sqrt(constraints) * (spread + rounding);
  if (loss_ == "softmax" && !(exact && held_rows_ == support_)) return false;  // b may be out of reach in the limit
  const std::int64_t falling = rows_ - held_rows_;
  result_ = {true, v_ / range, held_rows_, falling, gap / range, spread / range, exact, {}};
  result_.reason = "no minimiser exists: along a direction the logits of " + rows_text(falling) +
                   (falling == 1 ? " with b = 0 falls" : " with b = 0 fall") + " behind those of the other " +
                   std::to_string(held_rows_) +
                   (loss_ == "softmax" ? ", which can reproduce b: L goes to its infimum 0 there and reaches it nowhere"
                                       : ", which stay equal: L decreases for ever there") +
                   (exact ? "" : " (they are equal to rounding)");
  return true;
}

}  // namespace

Separation find_separation(const RegressionObjective& objective, const VectorXd& candidate) {
  if (objective.column_terms().has_ridge()) return {};
  return SeparationSearch(objective, candidate).run();
}

bool minimiser_exists(const RegressionObjective& objective) {
  if (objective.column_terms().has_ridge()) return true;
  if (objective.loss().name() != "cross-entropy") return false;
  std::array<double, 2> exceptions{};
  for (Index i = 0; i < objective.b().size(); ++i) {
    if (objective.logit_offsets().is_masked(i)) continue;
    if (objective.b()[i] <= 0) ++exceptions[0];
    if (objective.weights_squared()[i] == 0) ++exceptions[1];
  }
  objective.A().communicator().sum(exceptions);
  return exceptions[0] == 0 || exceptions[1] == 0;
}

}  // namespace attnreg
