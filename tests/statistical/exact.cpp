#include "statistical/exact.hpp"

#include <algorithm>
#include <boost/multiprecision/cpp_bin_float.hpp>
#include <boost/multiprecision/eigen.hpp>
#include <limits>
#include <string>
#include <utility>

namespace attnreg::hunt {

namespace {

using Exact = boost::multiprecision::number<boost::multiprecision::cpp_bin_float<50>, boost::multiprecision::et_off>;
using ExactVector = Eigen::Matrix<Exact, Eigen::Dynamic, 1>;
using ExactMatrix = Eigen::Matrix<Exact, Eigen::Dynamic, Eigen::Dynamic>;
using Eigen::Index;

constexpr double kEps = std::numeric_limits<double>::epsilon();
constexpr double kZero = 1e-40;      // relative: rounding of 50 digits, and 10 to spare
constexpr int kMostSweeps = 8;       // of rotations: they converge quadratically
constexpr int kMostSteps = 200;      // of Newton's method: a few, unless it is far from the minimum
constexpr int kRidges = 20;          // each a quarter of the one before, the last the problem's own
constexpr double kStepped = 1e-35;   // of |x|: a step that changes nothing
constexpr double kValueError = 128;  // eps: of a value that is a sum over some rows

double rounded(const Exact& number) { return number.convert_to<double>(); }

Exact size_of(const Exact& number) { return number < 0 ? Exact(-number) : number; }

struct Hyperbolic {
  Exact cosh, sinh;
};

/// sinh keeps its digits next to 0.
Hyperbolic hyperbolic(const Exact& z) {
  const Exact growing = exp(z), falling = 1 / growing, square = z * z;
  Exact sinh = (growing - falling) / 2;
  if (size_of(z) < Exact(1e-6)) sinh = z * (1 + square / 6 * (1 + square / 20 * (1 + square / 42 * (1 + square / 72))));
  return {(growing + falling) / 2, sinh};
}

struct Spectrum {
  ExactVector values;  // not in order
  ExactMatrix vectors;
};

/// Of a symmetric matrix, by Jacobi's rotations.
Spectrum spectrum(ExactMatrix matrix) {
  const Index size = matrix.rows();
  ExactMatrix vectors = ExactMatrix::Identity(size, size);
  for (int sweep = 0; sweep < kMostSweeps; ++sweep) {
    for (Index p = 0; p < size; ++p)
      for (Index q = p + 1; q < size; ++q) {
        if (matrix(p, q) == 0) continue;
        const Exact ratio = (matrix(q, q) - matrix(p, p)) / (2 * matrix(p, q));
        const Exact tangent = (ratio < 0 ? -1 : 1) / (size_of(ratio) + sqrt(1 + ratio * ratio));
        const Exact cosine = 1 / sqrt(1 + tangent * tangent), sine = tangent * cosine;
        const auto rotate = [&](auto left, auto right) {
          for (Index k = 0; k < size; ++k) {
            const Exact before = left(k);
            left(k) = cosine * before - sine * right(k);
            right(k) = sine * before + cosine * right(k);
          }
        };
        rotate(matrix.col(p), matrix.col(q));
        rotate(matrix.row(p), matrix.row(q));
        rotate(vectors.col(p), vectors.col(q));
      }
  }
  return {matrix.diagonal(), std::move(vectors)};
}

/// row - centre; of a constant column 0, and not the rounding of 50 digits.
ExactVector about(const ExactVector& row, const ExactVector& centre) {
  return row.binaryExpr(centre, [](const Exact& a, const Exact& c) {
    return size_of(a - c) <= Exact(kZero) * size_of(a) ? Exact(0) : Exact(a - c);
  });
}

/// L, g and H at a point, and how large the terms are that they are sums of. H is the sum over the rows of curvature_i
/// (a_i - centre)(a_i - centre)^T + w_i^2 a_i a_i^T, and of coupling.
struct Evaluation {
  ExactVector Ax, z, slopes;  // z = A x + o; the derivatives of phi
  Exact value = 0, value_terms = 0;
  ExactVector slope_terms, curvature, curvature_terms, centre, gradient;
  ExactMatrix coupling, coupling_terms, hessian;
};

}  // namespace

struct ExactProblem::Parts {
  ExactMatrix A;
  ExactVector b, w2;
  std::string loss;
  ExactVector offset;

  Evaluation evaluate(const ExactVector& x) const;
  void add_normalised(Evaluation& at) const;
  void add_growing(Evaluation& at) const;
  void sum_rows(Evaluation& at) const;
  ExactVector scales(const Evaluation& at) const;
  ExactMatrix scaled_hessian(const Evaluation& at) const;
  Exact gradient_norm(const ExactVector& gradient) const;
  ExactVector gradient_rounding(const Evaluation& at) const;
  Exact value_rounding(const Evaluation& at, const ExactVector& x) const;
  std::optional<ExactVector> minimum(ExactVector point, const Exact& size) const;
};

namespace {

/// THE NORM of the bound on |x - x*|: Euclidean.
Exact distance(const ExactVector& x, const ExactVector& y) { return sqrt((x - y).squaredNorm()); }

}  // namespace

/// THE NORM of the stopping tests: in columns of equal size (docs/algorithms.md, section 1).
Exact ExactProblem::Parts::gradient_norm(const ExactVector& gradient) const {
  const bool sees_level = loss != "softmax" && loss != "cross-entropy";
  Exact squares = 0;
  for (Index j = 0; j < A.cols(); ++j) {
    const Exact mean = A.col(j).mean(), spread = (A.col(j).array() - mean).matrix().squaredNorm();
    const Exact size = sees_level || spread == 0 ? Exact(A.col(j).squaredNorm()) : spread;
    squares += gradient[j] * gradient[j] / (size > 0 ? size : Exact(1));
  }
  return sqrt(squares);
}

/// Softmax and cross-entropy.
void ExactProblem::Parts::add_normalised(Evaluation& at) const {
  const Exact largest = at.z.maxCoeff();
  ExactVector f = at.z.unaryExpr([&](const Exact& z) { return Exact(exp(z - largest)); });
  const Exact sum = f.sum();
  f /= sum;
  at.centre = A.transpose() * f;
  if (loss == "softmax") {
    const ExactVector c = f - b;
    const Exact gamma = f.dot(c);
    at.value = c.squaredNorm() / 2;
    at.value_terms = c.cwiseAbs().dot(f + b.cwiseAbs());
    for (Index i = 0; i < f.size(); ++i) {
      at.slopes[i] = f[i] * (c[i] - gamma);
      at.slope_terms[i] = f[i] * (f[i] + size_of(b[i]) + size_of(gamma));
      at.curvature[i] = f[i] * (2 * f[i] - b[i] - gamma);
      at.curvature_terms[i] = f[i] * (2 * f[i] + size_of(b[i]) + size_of(gamma));
    }
  } else {
    const Exact total = b.sum();
    at.slopes = total * f - b;
    at.value = total * (largest + log(sum)) - b.dot(at.z);
    at.value_terms = total * (1 + size_of(largest + log(sum))) + b.cwiseAbs().dot(at.z.cwiseAbs());
    at.slope_terms = total * f + b.cwiseAbs();
    at.curvature = at.curvature_terms = total * f;
  }
}

/// exp, cosh, sinh, and the same rescaled.
void ExactProblem::Parts::add_growing(Evaluation& at) const {
  const bool rescaled = loss.starts_with("rescaled-");
  const Index rows = at.z.size();
  ExactVector u(rows), v(rows);
  for (Index i = 0; i < rows; ++i) {
    if (loss.ends_with("exp")) {
      u[i] = v[i] = exp(at.z[i]);
      continue;
    }
    const Hyperbolic value = hyperbolic(at.z[i]);
    u[i] = loss.ends_with("cosh") ? value.cosh : value.sinh;
    v[i] = loss.ends_with("cosh") ? value.sinh : value.cosh;
  }
  const Exact alpha = rescaled ? u.sum() : Exact(1);
  const ExactVector r = u - alpha * b;
  const Exact gamma = rescaled ? b.dot(r) : Exact(0);
  at.value = r.squaredNorm() / 2;
  at.value_terms = u.squaredNorm() + alpha * alpha * b.squaredNorm();
  for (Index i = 0; i < rows; ++i) {
    const Exact eta = r[i] - gamma;
    const Exact terms = size_of(u[i]) + size_of(alpha * b[i]) + size_of(gamma);
    at.slopes[i] = v[i] * eta;
    at.slope_terms[i] = size_of(v[i]) * terms;
    at.curvature[i] = v[i] * v[i] + u[i] * eta;
    at.curvature_terms[i] = v[i] * v[i] + size_of(u[i]) * terms;
  }
  if (!rescaled) return;
  const ExactVector c = A.transpose() * v, h = A.transpose() * v.cwiseProduct(b);
  at.coupling = b.squaredNorm() * c * c.transpose() - c * h.transpose() - h * c.transpose();
  const ExactVector c_terms = A.cwiseAbs().transpose() * v.cwiseAbs();
  const ExactVector h_terms = A.cwiseAbs().transpose() * v.cwiseProduct(b).cwiseAbs();
  at.coupling_terms = b.squaredNorm() * c_terms * c_terms.transpose() + 2 * c_terms * h_terms.transpose();
}

void ExactProblem::Parts::sum_rows(Evaluation& at) const {
  const Index columns = A.cols();
  at.gradient = A.transpose() * (at.slopes + w2.cwiseProduct(at.Ax));
  at.hessian = at.coupling;
  for (Index i = 0; i < A.rows(); ++i) {
    const ExactVector row = A.row(i).transpose(), from_centre = about(row, at.centre);
    for (Index j = 0; j < columns; ++j)
      for (Index k = 0; k < columns; ++k)
        at.hessian(j, k) += at.curvature[i] * from_centre[j] * from_centre[k] + w2[i] * row[j] * row[k];
  }
}

Evaluation ExactProblem::Parts::evaluate(const ExactVector& x) const {
  Evaluation at;
  at.Ax = A * x;
  at.z = at.Ax + offset;
  at.slopes = at.slope_terms = at.curvature = at.curvature_terms = ExactVector::Zero(A.rows());
  at.centre = ExactVector::Zero(A.cols());
  at.coupling = at.coupling_terms = ExactMatrix::Zero(A.cols(), A.cols());
  if (loss == "softmax" || loss == "cross-entropy")
    add_normalised(at);
  else
    add_growing(at);
  const Exact ridge = w2.dot(at.Ax.cwiseAbs2()) / 2;
  at.value += ridge;
  at.value_terms += ridge;
  sum_rows(at);
  return at;
}

/// S of `Truth`.
ExactVector ExactProblem::Parts::scales(const Evaluation& at) const {
  ExactVector squares = at.coupling_terms.diagonal();
  for (Index i = 0; i < A.rows(); ++i) {
    const ExactVector row = A.row(i).transpose();
    squares += at.curvature_terms[i] * about(row, at.centre).cwiseAbs2() + w2[i] * row.cwiseAbs2();
  }
  return squares.unaryExpr([](const Exact& square) { return square > 0 ? Exact(sqrt(square)) : Exact(1); });
}

ExactMatrix ExactProblem::Parts::scaled_hessian(const Evaluation& at) const {
  const ExactVector inverse = scales(at).cwiseInverse();
  return inverse.asDiagonal() * at.hessian * inverse.asDiagonal();
}

ExactVector ExactProblem::Parts::gradient_rounding(const Evaluation& at) const {
  const ExactVector terms = at.slope_terms + w2.cwiseProduct(at.Ax.cwiseAbs());
  const ExactMatrix centred = (A.rowwise() - at.centre.transpose()).cwiseAbs();
  // The second term: 50 digits have a rounding, too.
  return Exact(kEps) * (centred.transpose() * terms) + kZero * (A.cwiseAbs().transpose() * terms);
}

Exact ExactProblem::Parts::value_rounding(const Evaluation& at, const ExactVector& x) const {
  const ExactVector logits = (A.cwiseAbs() * x.cwiseAbs() + offset.cwiseAbs()).array() + 1;  // 1: of the exponential
  const ExactVector slopes = at.slopes.cwiseAbs() + w2.cwiseProduct(at.Ax.cwiseAbs());
  const Exact of_logits = kValueError * Exact(kEps) * slopes.dot(logits);
  // What a change of the logits by their rounding does that the slopes do not tell.
  const Exact curved = (kValueError * Exact(kEps) * logits).cwiseAbs2().dot(at.curvature_terms + w2);
  const Exact underflow = std::numeric_limits<double>::denorm_min() * static_cast<double>(A.rows());
  return kValueError * Exact(kEps) * at.value_terms + of_logits + curved + underflow;
}

ExactProblem::ExactProblem(const Problem& problem) {
  parts_ = std::make_unique<const Parts>(Parts{.A = problem.A.cast<Exact>(),
                                               .b = problem.b.cast<Exact>(),
                                               .w2 = problem.w.cast<Exact>().cwiseAbs2(),
                                               .loss = problem.loss,
                                               .offset = problem.offset.size() > 0
                                                             ? ExactVector(problem.offset.cast<Exact>())
                                                             : ExactVector(ExactVector::Zero(problem.b.size()))});
}

ExactProblem::~ExactProblem() = default;

Truth ExactProblem::at(const Eigen::VectorXd& x) const {
  const ExactVector point = x.cast<Exact>();
  const Evaluation at = parts_->evaluate(point);
  const Exact curvature = spectrum(parts_->scaled_hessian(at)).values.minCoeff();
  return {.value = rounded(at.value),
          .value_rounding = rounded(parts_->value_rounding(at, point)),
          .gradient = rounded(parts_->gradient_norm(at.gradient)),
          .gradient_rounding = rounded(parts_->gradient_norm(parts_->gradient_rounding(at))),
          .least_eigenvalue = rounded(spectrum(at.hessian).values.minCoeff()),
          .least_curvature = size_of(curvature) < kZero ? 0 : rounded(curvature),
          .largest_entry = rounded(at.hessian.cwiseAbs().maxCoeff())};
}

/// The minimum that Newton's method meets from a point. size: of the x that it is compared with.
std::optional<ExactVector> ExactProblem::Parts::minimum(ExactVector point, const Exact& size) const {
  Evaluation at = evaluate(point);
  for (int iteration = 0; iteration < kMostSteps; ++iteration) {
    const ExactVector scale = scales(at).cwiseInverse();
    const auto [values, V] = spectrum(scaled_hessian(at));
    if (values.minCoeff() < kZero) return std::nullopt;
    const ExactVector inner = V.transpose() * scale.cwiseProduct(at.gradient);
    const ExactVector step = -scale.cwiseProduct(V * inner.cwiseQuotient(values));
    // x* may be 0
    if (distance(point + step, point) <= kStepped * std::max(Exact(sqrt(point.squaredNorm())), size) || step.isZero(0))
      return point + step;
    Exact t = 1;
    const auto gained = [&](const Evaluation& next) {
      return next.value < at.value ||
             scale.cwiseProduct(next.gradient).squaredNorm() < scale.cwiseProduct(at.gradient).squaredNorm() / 4;
    };
    Evaluation next = evaluate(point + step);
    while (!gained(next) && t > Exact(1e-20)) {
      t /= 2;
      next = evaluate(point + t * step);
    }
    if (!gained(next)) return point + step;
    point += t * step;
    at = std::move(next);
  }
  return std::nullopt;
}

std::optional<double> ExactProblem::distance_to_minimum(const Eigen::VectorXd& x) const {
  const ExactVector from = x.cast<Exact>(), zero = ExactVector::Zero(x.size());
  const Exact size = sqrt(from.squaredNorm());
  for (const ExactVector& start : {from, zero})  // a far x may be too far for Newton's method
    if (const auto found = parts_->minimum(start, size)) return rounded(distance(from, *found));
  // So may 0 be of a minimum that nothing but a weak ridge keeps from running away: down from a strong one.
  Parts stronger = *parts_;
  ExactVector point = zero;
  for (int k = kRidges; k >= 0; --k) {
    stronger.w2 = parts_->w2 * pow(Exact(4), k);
    const ExactVector ahead = 4 * point;  // far out x* is about in proportion to 1 / w^2
    const bool is_ahead = stronger.evaluate(ahead).value < stronger.evaluate(point).value;
    const auto found = stronger.minimum(is_ahead ? ahead : point, size);
    if (!found) return std::nullopt;
    point = *found;
  }
  return rounded(distance(from, point));
}

double ExactProblem::error_of_derivatives(const Eigen::VectorXd& x) const {
  const ExactVector point = x.cast<Exact>();
  const Evaluation at = parts_->evaluate(point);
  const Exact h("1e-13");
  Exact error = 0;
  for (Index j = 0; j < x.size(); ++j) {
    ExactVector ahead = point, behind = point;
    ahead[j] += h;
    behind[j] -= h;
    const Evaluation plus = parts_->evaluate(ahead), minus = parts_->evaluate(behind);
    const Exact slope = (plus.value - minus.value) / (2 * h);
    error = std::max(error, Exact(size_of(slope - at.gradient[j]) / at.gradient.cwiseAbs().maxCoeff()));
    const ExactVector column = (plus.gradient - minus.gradient) / (2 * h);
    error =
        std::max(error, Exact((column - at.hessian.col(j)).cwiseAbs().maxCoeff() / at.hessian.cwiseAbs().maxCoeff()));
  }
  return rounded(error);
}

}  // namespace attnreg::hunt
