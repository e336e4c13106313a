#include "kernels.hpp"

#include <omp.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <optional>
#include <vector>

#include "algebra/lapack.hpp"
#include "algebra/pivoted_factor.hpp"
#include "losses/losses.hpp"
#include "naive.hpp"
#include "numbers/random.hpp"
#include "objective/regression_objective.hpp"
#include "ranks/span_of.hpp"
#include "rows/gram.hpp"
#include "rows/joint_passes.hpp"
#include "rows/row_passes.hpp"
#include "sampling/leverage_basis.hpp"
#include "sampling/sketch.hpp"

namespace attnreg::bench {

namespace {

using Eigen::MatrixXd;
using Eigen::VectorXd;

constexpr double kTrialStep = 0.5;
constexpr double kRounding = 1e-11;  // of sums over up to some 10^7 rows, relative to their largest element

}  // namespace

struct Workbench::State {
  State(const BenchMatrix& bench_matrix, const BenchMatrix* bench_twin);

  void add_products(std::vector<Kernel>& kernels);
  void add_objective(std::vector<Kernel>& kernels);
  void add_many_columns(std::vector<Kernel>& kernels);
  void add_gram(std::vector<Kernel>& kernels);
  void add_leverage(std::vector<Kernel>& kernels);
  Kernel multiply_kernel(const std::string& name, const RowMatrix& rows);
  Kernel normal_product_kernel(const std::string& name, const RowMatrix& rows);
  Kernel gradient_kernel(const std::string& name, const RowMatrix& rows);

  // The formulas, naively: one entry of A after another. Local parts unless `total` is said.
  VectorXd naive_multiply(const VectorXd& v) const { return bench::naive_multiply(matrix, v); }
  VectorXd naive_transpose(const VectorXd& u) const { return bench::naive_transpose(matrix, u); }
  VectorXd total(VectorXd local) const;
  double naive_value(const VectorXd& v) const { return bench::naive_value(matrix, v, b, ridge); }
  VectorXd row_curvature(const VectorXd& y) const {
    return curvature.array() * (y.array() - centre.dot(p)) + ridge.array() * y.array();
  }
  double gram_error(const MatrixXd& found) const;
  double objective_error() const;
  double exact_score_error();
  Index sampled_row(Index k) const { return k * std::max<Index>(1, n / 64); }
  Index sampled_rows() const { return n == 0 ? 0 : (n - 1) / std::max<Index>(1, n / 64) + 1; }

  void go_to(const VectorXd& v) {
    if (at.x != v) at = objective->evaluate(v);
  }
  void scale_rows();
  void run_dsyrk();

  const BenchMatrix& matrix;
  const BenchMatrix* twin;
  const RowMatrix& A;
  Index d, n;
  VectorXd x, from, p;     // the point, one near it, and a direction
  VectorXd b, w, weights;  // rows
  std::optional<RegressionObjective> objective;
  Point at;
  Direction direction, along;
  Trial trial;
  LossPoint point;                          // at x, and so are the next ones
  VectorXd curvature, ridge, centre, z, f;  //
  MatrixXd outputs;                         // q + w^2 z and f, what the gradient multiplies

  VectorXd row_result, delta;  // results, and so are the next ones
  MatrixXd result, rows_result, gram, sketched;
  RowMajorMatrix scaled;  // diag(weights)^{1/2} (A - 1 centre^T)
  LeverageBasis basis;
  LeverageScores scores;
  PivotedFactor factor;
  double change = 0;
};

Workbench::State::State(const BenchMatrix& bench_matrix, const BenchMatrix* bench_twin)
    : matrix(bench_matrix), twin(bench_twin), A(bench_matrix.A()), d(A.columns()), n(A.rows_local()) {
  const auto& communicator = A.communicator();
  const auto rows_global = static_cast<double>(A.rows_global());
  x = normals(d, 11);
  p = 0.3 * normals(d, 12);
  from = x - 0.1 * normals(d, 13);
  b = A.multiply(normals(d, 14)).array().exp();
  b /= communicator.sum(b.sum());
  w = VectorXd::Constant(n, 1e-3 / std::sqrt(rows_global));
  weights = b.array() * rows_global + 0.1;
  objective.emplace(A, b, w, make_loss("softmax"));
  at = objective->evaluate(x);
  along = {p};
  curvature = objective->curvatures(at).delta, ridge = objective->weights_squared();
  centre = objective->state_of(at).centre;

  z = naive_multiply(x);
  f = z.array().exp();
  f /= communicator.sum(f.sum());
  const double gamma = communicator.sum(f.dot(f - b));
  outputs.resize(n, 2);
  outputs << f.array() * (f.array() - b.array() - gamma) + ridge.array() * z.array(), f;

  // The sums once at a safe reference, and again at the one found: accurate only near it.
  const LossRows rows{span_of(z), span_of(b)};
  point.reference = communicator.max(objective->loss().shift(rows));
  for (int round = 0; round < 2; ++round) {
    LossSums sums{};
    objective->loss().add_value(rows, point.reference, sums);
    communicator.sum(sums);
    point = objective->loss().value(sums, point.reference);
  }
}

VectorXd Workbench::State::total(VectorXd local) const {
  A.communicator().sum(span_of(local));
  return local;
}

/// Of some rows.
double Workbench::State::exact_score_error() {
  std::vector<Index> rows(static_cast<std::size_t>(sampled_rows()));
  for (std::size_t k = 0; k < rows.size(); ++k) rows[k] = sampled_row(static_cast<Index>(k));
  return difference(scores.scores(rows), naive_scores(matrix, weights, rows));
}

/// Of value and gradient, at x.
double Workbench::State::objective_error() const {
  const double value = naive_value(x), of_value = std::abs(at.value - value) / value;
  return std::max(difference(at.gradient, total(naive_transpose(outputs.col(0)))), of_value);
}

/// Of the lower triangle of this rank's sum_i weights_i (a_i - centre)(a_i - centre)^T: its product with a vector.
double Workbench::State::gram_error(const MatrixXd& found) const {
  VectorXd u = naive_multiply(p);
  u = weights.array() * (u.array() - centre.dot(p));
  const VectorXd expected = naive_transpose(u) - u.sum() * centre;
  return difference(found.selfadjointView<Eigen::Lower>() * p, expected);
}

void Workbench::State::scale_rows() {
  if (scaled.rows() == n) return;
  scaled.resize(n, d);
  for (Index i = 0; i < n; ++i) {
    scaled.row(i) = -centre;
    matrix.for_entries(i, [&](Index j, double a) { scaled(i, j) += a; });
    scaled.row(i) *= std::sqrt(weights[i]);
  }
}

void Workbench::State::run_dsyrk() {
  gram = MatrixXd::Zero(d, d);
  const int order = static_cast<int>(d), rows = static_cast<int>(n);
  const double one = 1;
  dsyrk_("L", "N", &order, &rows, &one, scaled.data(), &order, &one, gram.data(), &order);
}

Kernel Workbench::State::multiply_kernel(const std::string& name, const RowMatrix& rows) {
  return {.name = name,
          .run = [this, &rows] { row_result = rows.multiply(x); },
          .error = [this] { return difference(row_result, z); },
          .tolerance = kRounding};
}

Kernel Workbench::State::normal_product_kernel(const std::string& name, const RowMatrix& rows) {
  return {.name = name,
          .run =
              [this, &rows] {
                result = rows.passes().normal_product(p, {curvature.data(), ridge.data(), centre.dot(p)}, row_result);
              },
          .error =
              [this] {
                const VectorXd y = naive_multiply(p);
                return std::max(difference(row_result, y),
                                difference(result.topRows(d), naive_transpose(row_curvature(y))));
              },
          .tolerance = kRounding};
}

// What `RegressionObjective::differentiate` does but for its bound on rounding errors and the all-reduce.
Kernel Workbench::State::gradient_kernel(const std::string& name, const RowMatrix& rows) {
  const auto run = [this, &rows] {
    delta.resize(n);
    const auto map = [&](Index first, Index count, double* U, double*) {
      const auto at = static_cast<std::size_t>(first), size = static_cast<std::size_t>(count);
      std::array<double, 1024> q, fitted;
      objective->loss().differentiate(
          {span_of(z).subspan(at, size), span_of(b).subspan(at, size)}, point,
          {std::span(q).first(size), std::span(fitted).first(size), span_of(delta).subspan(at, size)});
      for (Index i = 0; i < count; ++i) {
        const auto k = static_cast<std::size_t>(i);
        U[2 * i] = q[k] + ridge[first + i] * z[first + i];
        U[2 * i + 1] = fitted[k];
      }
    };
    result = rows.passes().map({.columns = 2, .map = map}).columns;
  };
  const auto error = [this] {
    return std::max(difference(result.col(0), naive_transpose(outputs.col(0))),
                    difference(result.col(1), naive_transpose(outputs.col(1))));
  };
  return {.name = name, .run = run, .error = error, .tolerance = kRounding};
}

void Workbench::State::add_products(std::vector<Kernel>& kernels) {
  const bool is_short = twin != nullptr, is_sparse = matrix.type() == RowType::csr;
  kernels.push_back(multiply_kernel("multiply", A));
  if (is_short) kernels.back().versus = "multiply_f64";
  for (const Index k : {1, 2}) {
    kernels.push_back(
        {.name = "transpose_multiply_" + std::to_string(k),
         .run = [this, k] { result = A.passes().transpose_multiply(outputs.leftCols(k)); },
         .error = [this, k] { return difference(result.col(k - 1), naive_transpose(outputs.col(k - 1))); },
         .tolerance = kRounding});
  }
  kernels.push_back(normal_product_kernel("normal_product", A));
  kernels.back().goal = is_short ? "G21" : is_sparse ? "G5" : "G1";
  if (is_short) kernels.back().versus = "normal_product_f64";
  if (is_sparse) kernels.back().versus = "multiply";
  kernels.push_back(gradient_kernel("gradient", A));
  kernels.back().goal = is_short ? "G21" : "G2";
  if (is_short) {
    kernels.back().versus = "gradient_f64";
    kernels.push_back(multiply_kernel("multiply_f64", twin->A()));
    kernels.push_back(normal_product_kernel("normal_product_f64", twin->A()));
    kernels.push_back(gradient_kernel("gradient_f64", twin->A()));
  }
  kernels.push_back({.name = "row_norms",
                     .run = [this] { row_result = A.passes().row_norms(VectorXd::Ones(A.columns())).cwiseAbs2(); },
                     .error =
                         [this] {
                           VectorXd squares = VectorXd::Zero(n);
                           for (Index i = 0; i < n; ++i)
                             matrix.for_entries(i, [&](Index, double a) { squares[i] += a * a; });
                           return difference(row_result, squares);
                         },
                     .tolerance = kRounding});
}

void Workbench::State::add_objective(std::vector<Kernel>& kernels) {
  const auto error = [this] { return objective_error(); };
  constexpr double tolerance = 1e-9;  // the gradient is a small difference of its terms
  kernels.push_back({.name = "hessian_product",
                     .goal = "G19",
                     .run = [this] { result = objective->hessian_product(at, along); },
                     .prepare = [this] { go_to(x); },
                     .error =
                         [this] {
                           const VectorXd y = naive_multiply(p), u = curvature.array() * (y.array() - centre.dot(p));
                           const double mass = A.communicator().sum(u.sum());
                           return difference(result, total(naive_transpose(row_curvature(y))) - mass * centre);
                         },
                     .tolerance = tolerance});
  kernels.push_back({.name = "step",
                     .run = [this] { at = objective->step(std::move(at), std::move(direction), trial); },
                     .prepare =
                         [this] {
                           at = objective->evaluate(from);
                           direction = objective->direction(x - from);
                           trial = objective->try_steps(at, direction, std::array{1.0})[0];
                         },
                     .error = error,
                     .tolerance = tolerance});
  kernels.push_back({.name = "step_in_one_read",
                     .goal = "G3",
                     .run =
                         [this] {
                           direction = objective->likely_direction(at, x - from);
                           at = objective->step(std::move(at), std::move(direction), {.t = 1});
                         },
                     .prepare = [this] { at = objective->evaluate(from); },
                     .error = error,
                     .tolerance = tolerance});
  kernels.push_back({.name = "move_in_one_read",
                     .goal = "G3",
                     .run = [this] { at = objective->refreshed(std::move(at)); },
                     .prepare = [this] { go_to(x); },
                     .error = error,
                     .tolerance = tolerance});
  kernels.push_back({.name = "move_in_two_reads",
                     .goal = "G3",
                     .run = [this] { at = objective->evaluate(x); },
                     .prepare = [this] { go_to(from); },
                     .error = error,
                     .tolerance = tolerance});
  kernels.push_back({.name = "line_search_trial",
                     .goal = "G4",
                     .run = [this] { change = objective->try_steps(at, direction, std::array{kTrialStep})[0].change; },
                     .prepare =
                         [this] {
                           go_to(from);
                           direction = objective->direction(x - from);
                           sum_in_one_stream(matrix);  // a read of A comes between two trials
                         },
                     .error =
                         [this] {
                           const double naive = naive_value(from + kTrialStep * (x - from)) - naive_value(from);
                           return std::abs(change / naive - 1);
                         },
                     .tolerance = tolerance});
}

void Workbench::State::add_many_columns(std::vector<Kernel>& kernels) {
  for (const int k : {8, 16}) {
    const auto X = std::make_shared<const MatrixXd>(normal_columns(d, k));
    kernels.push_back({.name = "normal_products_" + std::to_string(k),
                       .run =
                           [this, X, k] {
                             const RowCurvature one{curvature.data(), ridge.data(), centre.dot(p)};
                             JointPasses passes(A);
                             const RowMatrix joined(A.passes().joined(passes));
                             rows_result.resize(A.rows_local(), k);
                             result.resize(d + 1, k);
                             std::vector<std::function<void()>> tasks;
                             for (Eigen::Index c = 0; c < k; ++c)
                               tasks.emplace_back([&, c] {
                                 VectorXd y;
                                 result.col(c) = joined.passes().normal_product(X->col(c), one, y);
                                 rows_result.col(c) = y;
                               });
                             passes.run(tasks);
                           },
                       .error =
                           [this, X, k] {
                             const VectorXd expected = naive_transpose(row_curvature(naive_multiply(X->col(k - 1))));
                             return difference(result.col(k - 1).head(d), expected);
                           },
                       .tolerance = kRounding,
                       .share = k});
  }
}

void Workbench::State::add_gram(std::vector<Kernel>& kernels) {
  kernels.push_back({.name = "gram",
                     .run = [this] { gram = signed_gram(A, {weights}, centre).positive; },
                     .error = [this] { return gram_error(gram); },
                     .tolerance = kRounding});
  if (matrix.type() != RowType::f64 || omp_get_max_threads() != 1) return;
  kernels.push_back({.name = "dsyrk",
                     .goal = "G6",
                     .run = [this] { run_dsyrk(); },
                     .prepare = [this] { scale_rows(); },
                     .error = [this] { return gram_error(gram); },
                     .tolerance = kRounding,
                     .versus = "gram"});
}

void Workbench::State::add_leverage(std::vector<Kernel>& kernels) {
  const auto sum_error = [this] { return std::abs(scores.sum / static_cast<double>(scores.rank) - 1); };
  const auto sketch_options = SketchOptions{.rows = std::max<Index>(6 * d, 64)};
  kernels.push_back({.name = "leverage_scores",
                     .goal = "G7",
                     .run = [this] { scores = leverage_scores(A, weights, {}); },
                     .error = sum_error,
                     .tolerance = 0.1});  // 16 columns, a sketch of 6 d rows: some percent
  kernels.push_back({.name = "sketch",
                     .run = [this, sketch_options] { sketched = sketch(A, weights.cwiseSqrt(), sketch_options); },
                     .error =
                         [this] {
                           MatrixXd all = sketched;
                           A.communicator().sum(span_of(all));
                           double squares = 0;
                           for (Index i = 0; i < n; ++i)
                             matrix.for_entries(i, [&](Index, double a) { squares += weights[i] * a * a; });
                           return std::abs(all.squaredNorm() / A.communicator().sum(squares) - 1);
                         },
                     .tolerance = 0.1});
  kernels.push_back({.name = "sketch_factorization",
                     .run = [this] { factor = pivoted_qr(sketched, 1e-12); },
                     .prepare =
                         [this, sketch_options] {
                           if (sketched.size() != 0) return;
                           sketched = sketch(A, weights.cwiseSqrt(), sketch_options);
                           A.communicator().sum({sketched.data(), static_cast<std::size_t>(sketched.size())});
                         },
                     .error =
                         [this] {
                           const MatrixXd Q = sketched * factor.solve(MatrixXd::Identity(factor.rank(), factor.rank()));
                           return difference(Q.transpose() * Q, MatrixXd::Identity(factor.rank(), factor.rank()));
                         },
                     .tolerance = 1e-9});
  kernels.push_back({.name = "row_norms_16",
                     .run = [this] { row_result = row_norms_squared(A, basis.N); },
                     .prepare =
                         [this] {
                           if (basis.rank == 0) basis = leverage_basis(A, weights, {});
                         },
                     .error =
                         [this] {
                           VectorXd found(sampled_rows()), expected(sampled_rows());
                           for (Index k = 0; k < found.size(); ++k) {
                             VectorXd y = VectorXd::Zero(basis.N.cols());
                             matrix.for_entries(sampled_row(k), [&](Index j, double a) { y += a * basis.N.row(j); });
                             found[k] = row_result[sampled_row(k)];
                             expected[k] = y.squaredNorm();
                           }
                           return difference(found, expected);
                         },
                     .tolerance = kRounding});
  const auto exact = [this](const std::string& name, ExactRoute route) {
    return Kernel{.name = name,
                  .goal = "G8",
                  .run = [this, route] { scores = exact_leverage_scores(A, weights, route); },
                  .error = [this] { return exact_score_error(); },
                  .tolerance = 1e-8,
                  .versus = "leverage_scores"};
  };
  if (matrix.type() == RowType::csr) return;  // the routes for all rows work on dense ones
  kernels.push_back(exact("exact_scores_gram", ExactRoute::gram));
  if (matrix.type() == RowType::f64) kernels.push_back(exact("exact_scores_qr", ExactRoute::qr));
}

Workbench::Workbench(const BenchMatrix& matrix, const BenchMatrix* twin)
    : state_(std::make_unique<State>(matrix, twin)) {}
Workbench::~Workbench() = default;

std::vector<Kernel> Workbench::kernels() {
  std::vector<Kernel> kernels;
  state_->add_products(kernels);
  state_->add_objective(kernels);
  state_->add_many_columns(kernels);
  state_->add_gram(kernels);
  state_->add_leverage(kernels);
  return kernels;
}

}  // namespace attnreg::bench
