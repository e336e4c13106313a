#include "attnreg/leverage.hpp"
#include "rows/row_passes.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <mutex>
#include <span>
#include <string>
#include <utility>

#include "algebra/lapack.hpp"
#include "algebra/linear_solver_choice.hpp"
#include "algebra/pivoted_factor.hpp"
#include "errors/refuse.hpp"
#include "numbers/random.hpp"
#include "ranks/span_of.hpp"
#include "rows/dense_rows.hpp"
#include "rows/gram.hpp"
#include "sampling/leverage_basis.hpp"
#include "sampling/sampling.hpp"

namespace attnreg {

VectorXd row_scale(const RowMatrix& A, const VectorXd& weights, RowWeights kind) {
  if (weights.size() != 0 && weights.size() != A.rows_local())
    return VectorXd::Constant(A.rows_local(), std::numeric_limits<double>::quiet_NaN());
  if (kind == RowWeights::squares) return weights.cwiseSqrt();
  return (weights.array() >= 0).select(weights, std::numeric_limits<double>::quiet_NaN());
}

void explain_failure(const RowMatrix& A, const VectorXd& weights) {
  A.communicator().agree([&] {
    if (weights.size() != 0) check_row_numbers(A, weights, "weight");
  });
  refuse("leverage scores: A has numbers that are not finite, or so large that their sums overflow");
}

double rank_tolerance(const RowMatrix& A, Index rows) {
  const double n = static_cast<double>(A.rows_global());
  return 4 * std::numeric_limits<double>::epsilon() * (static_cast<double>(rows) + std::sqrt(n));
}

SketchOptions sketch_options(const RowMatrix& A, const LeverageOptions& options) {
  const Index d = A.columns(), rows = options.sketch_rows;
  if (rows != 0 && rows < 2 * d)
    refuse("a sketch of " + std::to_string(rows) + " rows is too small for " + std::to_string(d) +
           " columns: give at least " + std::to_string(2 * d));
  if (options.jl_columns < 0)
    refuse(std::to_string(options.jl_columns) + " JL columns: give 0 (exact row norms) or more");
  return {.rows = rows != 0 ? rows : std::max<Index>(6 * d, 64),
          .nonzeros = options.nonzeros,
          .seed = options.seed,
          .iteration = options.iteration};
}

MatrixXd jl_projection(Index rank, Index k, const LeverageOptions& options) {
  MatrixXd G = MatrixXd::Identity(rank, k);
  if (rank <= k) return G;
  const RandomStream stream(options.seed, Purpose::jl_columns, options.iteration);
  VectorXd row(k);
  for (Index j = 0; j < rank; ++j) {
    stream.normals(j, std::span<double>(row.data(), static_cast<std::size_t>(k)));
    G.row(j) = row / std::sqrt(static_cast<double>(k));
  }
  return G;
}

namespace {

/// Collective. The basis of rank 0's factor on all ranks. sketch_rows: 0 if R is that of all rows; jl: null for exact
/// row norms.
LeverageBasis share_basis(const RowMatrix& A, const VectorXd& weights, const PivotedFactor& factor,
                          Index sketch_rows = 0, const LeverageOptions* jl = nullptr) {
  const Index d = A.columns(), rank = factor.rank(), k = jl != nullptr ? jl->jl_columns : d;
  MatrixXd message = MatrixXd::Zero(d * k + 2, 1);
  if (A.communicator().is_root() && factor.finite) {
    MatrixXd G = jl != nullptr ? jl_projection(rank, k, *jl) : MatrixXd(MatrixXd::Identity(rank, k));
    if (sketch_rows > 0) G *= std::sqrt(1 - static_cast<double>(rank) / static_cast<double>(sketch_rows));
    Eigen::Map<MatrixXd>(message.data(), d, k) = factor.solve(G);
    if (message.allFinite()) message.bottomRows<2>() << 1, static_cast<double>(rank);
  }
  A.communicator().broadcast(span_of(message));
  if (message(d * k, 0) == 0) explain_failure(A, weights);
  LeverageBasis basis;
  basis.rank = static_cast<Index>(message(d * k + 1, 0));
  basis.N = Eigen::Map<const MatrixXd>(message.data(), d, std::min(k, basis.rank));
  return basis;
}

/// Local, one read. This rank's part of A^T diag(s) A; NaN for unusable weights.
MatrixXd weighted_gram(const RowMatrix& A, const VectorXd& weights) {
  VectorXd usable = weights.size() == 0 ? VectorXd(VectorXd::Ones(A.rows_local()))
                                        : row_scale(A, weights, RowWeights::squares).cwiseAbs2();
  MatrixXd gram = signed_gram(A, {usable}).positive;
  if (!usable.allFinite()) gram.setConstant(std::numeric_limits<double>::quiet_NaN());
  return gram;
}

constexpr double kLargestSize = 1e100, kSmallestSize = 1e-100;  // of numbers that may be squared

bool may_be_squared(double size) { return size == 0 || (size > kSmallestSize && size < kLargestSize); }

/// Collective. The largest norm of a row of diag(weights)^{1/2} A; 0 for weights that cannot be used.
double largest_norm(const RowMatrix& A, const VectorXd& weights) {
  VectorXd norms = A.passes().row_norms();
  if (weights.size() == norms.size()) norms = norms.cwiseProduct(weights.cwiseSqrt());
  const double mine = norms.size() == 0 || !norms.allFinite() ? 0 : norms.maxCoeff();
  return A.communicator().max(mine);
}

/// Of M, m x d. By Cholesky of M^T M, several times faster than QR, where its condition says that it is accurate.
PivotedFactor pivoted_factor(RowMajorMatrix M, double tolerance) {
  constexpr double kAccurate = 50 * std::numeric_limits<double>::epsilon();  // times d: scores to 2 %
  const double size = M.cwiseAbs().maxCoeff();
  if (!may_be_squared(size) && std::isfinite(size)) {
    const VectorXd scale = VectorXd::NullaryExpr(M.cols(), [&](Index j) { return scale_for(M.col(j).stableNorm()); });
    M = M * scale.asDiagonal();
    PivotedFactor factor = pivoted_factor(std::move(M), tolerance);
    factor.column_scale = factor.column_scale.cwiseProduct(scale);
    return factor;
  }
  RowMajorMatrix gram = RowMajorMatrix::Zero(M.cols(), M.cols());
  add_gram(M, gram);
  gram.triangularView<Eigen::StrictlyUpper>() = gram.transpose();
  auto factor = regular_cholesky(gram, kAccurate * static_cast<double>(M.cols()));
  if (factor.finite) return factor;
  return pivoted_qr(M, tolerance);
}

/// OpenBLAS built for one thread must not be called by two at once: it gives them the same work space.
std::mutex lapack_mutex;

/// R of the QR factorization of the rows seen so far, updated block by block: R <- R of [R; block].
class TriangularFactor {
 public:
  explicit TriangularFactor(Index columns) : R_(MatrixXd::Zero(columns, columns)), workspace_(2 * kWidth * columns) {}

  const MatrixXd& R() const { return R_; }

  /// block: any rows x columns; overwritten. 2 rows d^2 flops, by one thread at a time.
  void add(MatrixXd& block) {
    const int rows = static_cast<int>(block.rows()), d = static_cast<int>(R_.rows()), trapezoid = 0;
    const int width = std::min(kWidth, d);
    int info = 0;
    double* T = workspace_.data();
    const std::lock_guard lock(lapack_mutex);
    dtpqrt_(&rows, &d, &trapezoid, &width, R_.data(), &d, block.data(), &rows, T, &width, T + kWidth * d, &info);
  }
  TriangularFactor& operator+=(const TriangularFactor& other) {
    MatrixXd block = other.R_;
    add(block);
    return *this;
  }

 private:
  static constexpr int kWidth = 32;  // columns of a compact WY block
  MatrixXd R_;
  VectorXd workspace_;
};

/// Local, one read of A. R of diag(row_scale) A for this rank's rows, d x d. row_scale: rows_local, or empty for ones.
TriangularFactor triangular_factor(const RowMatrix& A, const VectorXd& row_scale) {
  return A.passes().pass(TriangularFactor(A.columns()), [&](const Tile& tile, TriangularFactor& factor) {
    MatrixXd block = tile.dense();
    if (row_scale.size() != 0) block = row_scale.segment(tile.first_local(), tile.rows()).asDiagonal() * block;
    factor.add(block);
  });
}

}  // namespace

MatrixXd triangular_factor_on_root(const RowMatrix& A, const VectorXd& row_scale) {
  const Communicator& communicator = A.communicator();
  auto local = triangular_factor(A, row_scale);
  for (int rank = 1; rank < communicator.size(); ++rank) {
    MatrixXd R = local.R();
    communicator.broadcast(span_of(R), rank);
    if (communicator.is_root()) local.add(R);
  }
  return local.R();
}

LeverageBasis leverage_basis(const RowMatrix& A, const VectorXd& weights, const LeverageOptions& options) {
  const SketchOptions sketched = sketch_options(A, options);
  const double rank0_bytes = 8.0 * static_cast<double>(sketched.rows) * static_cast<double>(A.columns());
  auto solver = options.linear_solver;
  if (solver.kind == LinearSolver::automatic && options.jl_columns == 0) solver.kind = LinearSolver::rank0;
  solver = chosen_linear_solver(A.communicator(), A.columns(), solver, rank0_bytes);
  if (solver.kind == LinearSolver::scalapack)
    return distributed_basis(A, weights, options, std::make_shared<const ProcessGrid>(A.communicator(), solver));
  const VectorXd scale = row_scale(A, weights, options.row_weights);
  const bool is_sketch = sketched.rows < A.rows_global();
  RowMajorMatrix rows = is_sketch ? sketch(A, scale, sketched) : rows_in_place(A, 0, A.rows_global(), scale);
  if (!is_sketch) A.passes().count_reads(1);
  A.communicator().sum_to_root(span_of(rows));
  PivotedFactor factor;
  if (A.communicator().is_root()) factor = pivoted_factor(rows, rank_tolerance(A, rows.rows()));
  const bool is_projected = options.jl_columns > 0 && options.jl_columns < A.columns();
  return share_basis(A, weights, factor, is_sketch ? sketched.rows : 0, is_projected ? &options : nullptr);
}

VectorXd row_norms_squared(const RowMatrix& A, const MatrixXd& N, const VectorXd& scale) {
  VectorXd norms = VectorXd::Zero(A.rows_local());
  const PackedColumns columns(N);
  A.passes().pass(0, [&](const Tile& tile, int&) {
    columns.multiply(tile, [&](Index, const RowMajorMatrix& Y) {
      for (Index i = 0; i < Y.rows(); ++i) {
        const Index row = tile.first_local() + i;
        norms[row] += scale.size() == 0 ? Y.row(i).squaredNorm() : (scale[row] * Y.row(i)).squaredNorm();
      }
    });
  });
  return norms;
}

LeverageScores scores_from_basis(const RowMatrix& A, const VectorXd& weights, const LeverageBasis& basis,
                                 RowWeights kind) {
  const bool roots = kind == RowWeights::roots && weights.size() != 0;
  LeverageScores result;
  result.rank = basis.rank;
  result.scores = row_norms_squared(A, basis.N, roots ? weights : VectorXd());
  for (Index i = 0; i < result.scores.size(); ++i) {
    const double weight = roots || weights.size() == 0 ? 1.0 : weights[i];
    result.scores[i] = weight == 0 ? 0 : std::min(1.0, weight * result.scores[i]);
  }
  result.sum = A.communicator().sum(result.scores.sum());
  result.largest = A.communicator().max(result.scores.size() == 0 ? 0.0 : result.scores.maxCoeff());
  if (result.rank > 0)
    result.coherence = result.largest * static_cast<double>(A.rows_global()) / static_cast<double>(result.rank);
  return result;
}

LeverageScores leverage_scores(const RowMatrix& A, const VectorXd& weights, const LeverageOptions& options) {
  return scores_from_basis(A, weights, leverage_basis(A, weights, options), options.row_weights);
}

LeverageScores exact_leverage_scores(const RowMatrix& A, const VectorXd& weights, ExactRoute route, RowWeights kind) {
  const auto& communicator = A.communicator();
  if (kind == RowWeights::roots || !may_be_squared(largest_norm(A, weights))) route = ExactRoute::qr;
  const double tolerance = rank_tolerance(A, A.columns());
  PivotedFactor factor;
  if (route == ExactRoute::gram) {
    auto gram = weighted_gram(A, weights);
    communicator.sum_to_root(span_of(gram));
    if (communicator.is_root()) factor = pivoted_cholesky(gram, tolerance);
  } else {
    const MatrixXd R = triangular_factor_on_root(A, row_scale(A, weights, kind));
    if (communicator.is_root()) factor = pivoted_qr(R, tolerance);
  }
  return scores_from_basis(A, weights, share_basis(A, weights, factor), kind);
}

}  // namespace attnreg
