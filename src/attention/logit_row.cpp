#include "attention/logit_row.hpp"

#include <cmath>
#include <limits>
#include <span>

#include "numbers/vector_math.hpp"

namespace attnreg {

namespace {

using Eigen::ArrayXd;

std::span<double> span_of(ArrayRow row) { return {row.data(), static_cast<std::size_t>(row.size())}; }

void exponentials(ArrayRow row) { kernels::exp(span_of(row), span_of(row)); }
void exponentials_minus_one(ArrayRow row) { kernels::expm1(span_of(row), span_of(row)); }

double finite_or_infinity(double value) {
  return std::isfinite(value) ? value : std::numeric_limits<double>::infinity();
}

/// 1/2 |f - b|^2, f = softmax(z): B = P^T diag(delta) P, P = I - 1 f^T, modelled by the positive delta.
class SoftmaxRow final : public LogitRow {
 public:
  double value(ConstArrayRow z, ConstArrayRow b, ArrayRow u) const override {
    softmax_row(z, u);
    return finite_or_infinity(0.5 * (u - b).square().sum());
  }
  void gradient(ConstArrayRow f, ConstArrayRow b, ArrayRow q) const override { q = f * (f - b - (f * (f - b)).sum()); }
  void multiply_hessian(ConstArrayRow f, ConstArrayRow b, ArrayRow t) const override {
    const double gamma = (f * (f - b)).sum();
    t = f * (2 * f - b - gamma) * (t - (f * t).sum());
    t -= f * t.sum();
  }
  double change(ConstArrayRow f, ConstArrayRow b, ArrayRow y) const override {
    softmax_change(f, y);
    return finite_or_infinity(((f - b) * y).sum() + 0.5 * y.square().sum());
  }
  double model(ConstArrayRow f, ConstArrayRow b, ArrayRow D, ArrayRow c, ArrayRow g) const override {
    D = (f * (2 * f - b - (f * (f - b)).sum())).max(0);
    c = f;
    g = D;
    return D.sum();
  }
};

/// s log <exp(z), 1> - <b, z>, s = <b, 1>: B = s (diag(f) - f f^T).
class CrossEntropyRow final : public LogitRow {
 public:
  double value(ConstArrayRow z, ConstArrayRow b, ArrayRow u) const override {
    const double log_sum = softmax_row(z, u);
    return finite_or_infinity((b * (log_sum - z)).sum());
  }
  void gradient(ConstArrayRow f, ConstArrayRow b, ArrayRow q) const override { q = b.sum() * f - b; }
  void multiply_hessian(ConstArrayRow f, ConstArrayRow b, ArrayRow t) const override {
    t = b.sum() * f * (t - (f * t).sum());
  }
  double change(ConstArrayRow f, ConstArrayRow b, ArrayRow y) const override {
    const double mean = (f * y).sum(), slope = ((b.sum() * f - b) * y).sum();
    y -= mean;
    exponentials_minus_one(y);
    return finite_or_infinity(b.sum() * std::log1p((f * y).sum()) + slope);
  }
  double model(ConstArrayRow f, ConstArrayRow b, ArrayRow D, ArrayRow c, ArrayRow g) const override {
    const double s = std::max(b.sum(), 0.0);
    D = s * f;
    c = f;
    g = D;
    return s;
  }
};

/// 1/2 |u - <u, 1> b|^2, u = exp(z): B = diag(D) - u (u o b)^T - (u o b) u^T + |b|^2 u u^T, modelled by Gauss-Newton.
class RescaledRow final : public LogitRow {
 public:
  double value(ConstArrayRow z, ConstArrayRow b, ArrayRow u) const override {
    u = z;
    exponentials(u);
    return finite_or_infinity(0.5 * (u - u.sum() * b).square().sum());
  }
  void gradient(ConstArrayRow u, ConstArrayRow b, ArrayRow q) const override { q = u * shifted_residual(u, b); }
  void multiply_hessian(ConstArrayRow u, ConstArrayRow b, ArrayRow t) const override {
    const double ut = (u * t).sum(), ubt = (u * b * t).sum();
    t = (u.square() + u * shifted_residual(u, b)) * t - u * ubt - u * b * ut + b.square().sum() * ut * u;
  }
  double change(ConstArrayRow u, ConstArrayRow b, ArrayRow y) const override {
    exponentials_minus_one(y);
    y *= u;
    y -= y.sum() * b;
    return finite_or_infinity(((u - u.sum() * b) * y).sum() + 0.5 * y.square().sum());
  }
  double model(ConstArrayRow u, ConstArrayRow b, ArrayRow D, ArrayRow c, ArrayRow g) const override {
    D = u.square();
    c = u;
    g = u * b;
    return b.square().sum();
  }

 private:
  static ArrayXd shifted_residual(ConstArrayRow u, ConstArrayRow b) {
    const ArrayXd r = u - u.sum() * b;
    return r - (b * r).sum();
  }
};

}  // namespace

double softmax_row(ConstArrayRow z, ArrayRow u) {
  const double largest = z.maxCoeff();
  u = z - largest;
  exponentials(u);
  const double sum = u.sum();
  u /= sum;
  return largest + std::log(sum);
}

void softmax_change(ConstArrayRow f, ArrayRow y) {
  y -= (f * y).sum();  // softmax does not see it, and the sum below is then of second order
  exponentials_minus_one(y);
  const double growth = (f * y).sum();
  y = f * (y - growth) / (1 + growth);
}

std::unique_ptr<LogitRow> make_logit_row(AttentionForm form) {
  switch (form) {
    case AttentionForm::normalised: return std::make_unique<SoftmaxRow>();
    case AttentionForm::rescaled: return std::make_unique<RescaledRow>();
    case AttentionForm::cross_entropy: return std::make_unique<CrossEntropyRow>();
  }
  throw InternalError("unknown form of attention");
}

}  // namespace attnreg
