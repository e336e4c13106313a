#include "sparsify/choose_by_barriers.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <optional>
#include <span>
#include <string>

#include "algebra/dense_factors.hpp"
#include "algebra/pivoted_factor.hpp"
#include "errors/printable.hpp"
#include "errors/refuse.hpp"
#include "kernels/gram_kernels.hpp"
#include "numbers/exact_sum.hpp"
#include "numbers/vector_clones.hpp"
#include "ranks/activity.hpp"
#include "ranks/memory.hpp"
#include "ranks/span_of.hpp"
#include "ranks/stop.hpp"
#include "rows/dense_rows.hpp"
#include "rows/row_passes.hpp"
#include "sparsify/barriers.hpp"

namespace attnreg {

namespace {

constexpr double kGoOn = -1;  // in place of a SparsifyEnd

// All rows are scored, and M is decomposed, once for several steps where that takes longer than the rest of a step: for
// n / 8 steps from n = 256 on. Those choose among the rows with the best scores, 16 for each of these steps: as few
// columns are needed (docs/sparsification.md).
constexpr Index kManyDimensions = 256;
constexpr Index kStepsPerDimension = 8;  // the inverse
constexpr Index kMostStepsAtOnce = 64;
constexpr Index kCandidatesPerStep = 16;

Index steps_at_once(Index n) { return n < kManyDimensions ? 1 : std::min(n / kStepsPerDimension, kMostStepsAtOnce); }

/// A row with its score.
struct Scored {
  double score, row;
};

/// Leaves the rows with the largest scores, the lower rows of equal scores.
void keep_best(std::vector<Scored>& rows, std::size_t count) {
  count = std::min(count, rows.size());
  const auto better = [](const Scored& a, const Scored& b) {
    return a.score > b.score || (a.score == b.score && a.row < b.row);
  };
  std::ranges::partial_sort(rows, rows.begin() + static_cast<std::ptrdiff_t>(count), better);
  rows.resize(count);
}

/// Collective, one read. The largest |a_ij| of each column.
VectorXd column_sizes(const RowMatrix& A) {
  struct Largest {
    VectorXd of_column;
    Largest& operator+=(const Largest& other) {
      of_column = of_column.cwiseMax(other.of_column);
      return *this;
    }
  };
  Largest all = A.passes().pass(Largest{VectorXd::Zero(A.columns())}, [](const Tile& tile, Largest& part) {
    part += Largest{tile.dense().cwiseAbs().colwise().maxCoeff().transpose()};
  });
  A.communicator().max(span_of(all.of_column));
  return all.of_column;
}

/// Collective. T of the rows of A on every rank. Rank 0 decomposes, so that CPUs of different kinds do not disagree.
MatrixXd whitening_basis(const RowMatrix& A) {
  const Communicator& communicator = A.communicator();
  const VectorXd scales = column_sizes(A).unaryExpr(&scale_for);
  const MatrixXd K = exact_gram(A, scales);
  MatrixXd T;
  if (communicator.is_root()) T = scales.asDiagonal() * whitening_of(K, A.rows_global());
  VectorXd rank = VectorXd::Constant(1, static_cast<double>(T.cols()));
  communicator.broadcast(span_of(rank));
  T.conservativeResize(A.columns(), static_cast<Index>(rank[0]));
  communicator.broadcast(span_of(T));
  return T;
}

/// Local, one read. The rows v_i = T^T a_i.
RowMatrix whitened_rows(const RowMatrix& A, const MatrixXd& T) {
  RowMajorMatrix V = RowMajorMatrix::Zero(A.rows_local(), T.cols());
  const RowMajorMatrix basis = T;
  A.passes().pass(0, [&](const Tile& tile, int&) {
    RowMajorMatrix product = RowMajorMatrix::Zero(tile.rows(), T.cols());
    kernels::add_matrix_product(tile.dense().data(), tile.rows(), A.columns(), basis.data(), T.cols(), false,
                                product.data());
    V.middleRows(tile.first_local(), tile.rows()) = product;
  });
  return RowMatrix(A.communicator(), A.partition(), std::move(V));
}

/// In an order that does not depend on where the numbers lie in memory, as that of Eigen does.
ATTNREG_CLONES double dot(const double* x, const double* y, Index size) {
  constexpr Index lanes = 8;
  double part[lanes] = {};
  Index k = 0;
  for (; k + lanes <= size; k += lanes)
    for (Index lane = 0; lane < lanes; ++lane) part[lane] += x[k + lane] * y[k + lane];
  for (; k < size; ++k) part[0] += x[k] * y[k];
  return ((part[0] + part[1]) + (part[2] + part[3])) + ((part[4] + part[5]) + (part[6] + part[7]));
}

/// Collective. The `count` rows of V with the largest v^T G v, ascending; fewer if V has not as many with a number.
std::vector<std::int64_t> best_rows(const RowMatrix& V, const RowMajorMatrix& G, std::size_t count) {
  const Index n = V.columns();
  VectorXd scores(V.rows_local());
  V.passes().pass(0, [&](const Tile& tile, int&) {
    const auto rows = tile.dense();
    RowMajorMatrix product = RowMajorMatrix::Zero(tile.rows(), n);
    kernels::add_matrix_product(rows.data(), tile.rows(), n, G.data(), n, false, product.data());
    for (Index i = 0; i < tile.rows(); ++i)
      scores[tile.first_local() + i] = dot(product.row(i).data(), rows.row(i).data(), n);
  });
  std::vector<Scored> best;
  for (Index i = 0; i < scores.size(); ++i)
    if (!std::isnan(scores[i])) best.push_back({scores[i], static_cast<double>(V.first_row() + i)});
  keep_best(best, count);
  if (V.communicator().sum(std::ssize(best)) == 0) return {};
  std::vector<double> message;
  for (const Scored& one : best) message.insert(message.end(), {one.score, one.row});
  const std::vector<double> all = V.communicator().all_gather(std::span<const double>(message));
  best.clear();
  for (std::size_t k = 0; k < all.size(); k += 2) best.push_back({all[k], all[k + 1]});
  keep_best(best, count);
  std::vector<std::int64_t> rows;
  for (const Scored& one : best) rows.push_back(static_cast<std::int64_t>(one.row));
  std::ranges::sort(rows);
  return rows;
}

/// Collective. Rows of V, ascending, as columns on rank 0; elsewhere there are none.
MatrixXd rows_on_root(const RowMatrix& V, const std::vector<std::int64_t>& rows) {
  std::vector<Index> own;
  for (const std::int64_t row : rows)
    if (row >= V.first_row() && row < V.first_row() + V.rows_local())
      own.push_back(static_cast<Index>(row - V.first_row()));
  RowMajorMatrix mine(std::ssize(own), V.columns());
  V.passes().visit_rows(own, [&](std::size_t position, std::span<const double> row) {
    std::ranges::copy(row, mine.row(static_cast<Index>(position)).begin());
  });
  const std::vector<double> all = V.communicator().gather_to_root(std::span<const double>(span_of(mine)));
  return Eigen::Map<const MatrixXd>(all.data(), V.columns(), std::ssize(all) / V.columns());
}

/// The iteration. Rank 0 has the barriers and the weights; the others score their rows.
class Iteration {
 public:
  Iteration(const RowMatrix& V, double epsilon, std::int64_t steps, Index at_once)
      : V_(V),
        epsilon_(steps > 0 ? 0 : epsilon),
        at_once_(at_once > 0 ? at_once : steps_at_once(V.columns())),
        degree_(steps > 0 ? static_cast<double>(steps) / static_cast<double>(V.columns()) : barrier_degree(epsilon)),
        most_steps_(steps > 0 ? steps
                              : static_cast<std::int64_t>(std::ceil(degree_ * static_cast<double>(V.columns())))),
        barriers_(V.columns(), degree_) {}

  /// Collective.
  void run() {
    InSteps progress(static_cast<int>(std::min<std::int64_t>(most_steps_, std::numeric_limits<int>::max())));
    while (begin_steps()) {
      progress.next("choice of columns");
      const Index candidates = at_once_ == 1 ? 1 : at_once_ * kCandidatesPerStep;
      const std::vector<std::int64_t> rows = best_rows(V_, gain_, static_cast<std::size_t>(candidates));
      if (rows.empty()) return end_by_rounding();
      const MatrixXd columns = rows_on_root(V_, rows);
      const VectorXd steps = steps_among(columns, progress);
      if (steps[0] == 0) return end_by_rounding();
      for (Index k = 0; k < static_cast<Index>(steps[0]); ++k) {
        weights_[rows[static_cast<std::size_t>(steps[2 * k + 1])]] += steps[2 * k + 2];
        if (k > 0 && !root()) progress.next("choice of columns");
        ++steps_;
      }
    }
  }

  /// Collective. The rows of this rank with their scaled weights.
  BarrierChoice choice() {
    VectorXd extremes(2);
    if (root()) extremes << barriers_.spectrum().smallest, barriers_.spectrum().largest;
    V_.communicator().broadcast(span_of(extremes));
    BarrierChoice choice{
        .steps = steps_, .certified_epsilon = Barriers::Spectrum{extremes[0], extremes[1]}.epsilon(), .end = end_};
    std::vector<double> weights;
    for (const auto& [row, weight] : weights_) {
      if (row < V_.first_row() || row >= V_.first_row() + V_.rows_local()) continue;
      choice.rows.push_back(static_cast<Index>(row - V_.first_row()));
      weights.push_back(weight * 2 / (extremes[0] + extremes[1]));
    }
    choice.weights = Eigen::Map<const VectorXd>(weights.data(), static_cast<Index>(weights.size()));
    return choice;
  }

 private:
  bool root() const { return V_.communicator().is_root(); }
  void end_by_rounding() { end_ = SparsifyEnd::rounding; }

  /// Collective. How many steps were made with these candidates, then candidate and weight of each. Rank 0 makes them.
  VectorXd steps_among(const MatrixXd& candidates, InSteps& progress) {
    VectorXd message = VectorXd::Zero(2 * at_once_ + 1);
    if (root()) {
      barriers_.take_candidates(candidates);
      const std::int64_t most = std::min<std::int64_t>(at_once_, most_steps_ - steps_);
      Index made = 0;
      for (; made < most; ++made) {
        if (made > 0 && (is_in_vain() || !barriers_.advance_between())) break;
        const Index best = barriers_.best_candidate();
        if (best < 0) {
          if (made > 0) barriers_.retreat();
          break;
        }
        if (made > 0) progress.next("choice of columns");
        message[2 * made + 1] = static_cast<double>(best);
        message[2 * made + 2] = barriers_.add_candidate(best);
      }
      message[0] = static_cast<double>(made);
    }
    V_.communicator().broadcast(span_of(message));
    return message;
  }

  /// Collective. Whether there is another step, and its G.
  bool begin_steps() {
    const Index n = V_.columns();
    VectorXd message(n * n + 1);
    if (root()) {
      const std::optional<SparsifyEnd> reason = reason_to_end();
      message[0] = reason ? static_cast<double>(*reason) : kGoOn;
      if (!reason) Eigen::Map<MatrixXd>(message.data() + 1, n, n) = barriers_.gain();
    }
    V_.communicator().broadcast(span_of(message));
    gain_ = Eigen::Map<const MatrixXd>(message.data() + 1, n, n);
    if (message[0] == kGoOn) return true;
    end_ = static_cast<SparsifyEnd>(message[0]);
    return false;
  }

  /// On rank 0. If there is none, the barriers have moved.
  std::optional<SparsifyEnd> reason_to_end() {
    if (barriers_.spectrum().epsilon() <= epsilon_) return SparsifyEnd::reached;
    if (steps_ == most_steps_) return SparsifyEnd::all_steps;
    if (!barriers_.advance()) return SparsifyEnd::rounding;
    return {};
  }

  const RowMatrix& V_;
  double epsilon_;
  Index at_once_;  ///< steps for each time that all rows are scored
  double degree_;
  std::int64_t most_steps_, steps_ = 0;
  Barriers barriers_;
  RowMajorMatrix gain_;
  std::map<std::int64_t, double> weights_;  ///< by global row, replicated
  SparsifyEnd end_ = SparsifyEnd::all_steps;
};

/// Makes the products of a row with itself, lower triangle row by row.
void row_products(const double* row, Index n, double* products) {
  for (Index i = 0; i < n; ++i) {
    for (Index j = 0; j <= i; ++j) products[j] = row[i] * row[j];
    products += i + 1;
  }
}

}  // namespace

BarrierChoice choose_by_barriers(const RowMatrix& A, double epsilon, std::int64_t steps, Index at_once) {
  const auto n = static_cast<double>(A.columns());
  require_memory(A.communicator(), 8 * (n * static_cast<double>(A.rows_local()) + 12 * n * n),
                 "the whitened columns of X, " + std::to_string(A.rows_global()) + " x " + std::to_string(A.columns()));
  const MatrixXd T = whitening_basis(A);
  const Index rank = T.cols();
  if (rank == 0) return {.certified_epsilon = 0, .end = SparsifyEnd::reached};
  if (steps != 0 && steps <= rank)
    refuse("bss: " + std::to_string(steps) + " steps, expected more than the rank of X, " + std::to_string(rank));
  const RowMatrix V = whitened_rows(A, T);
  Iteration iteration(V, epsilon, steps, at_once);
  iteration.run();
  return iteration.choice();
}

double scale_for_squares(const RowMatrix& A) {
  constexpr double kSmallest = 1e-100, kLargest = 1e100;
  const VectorXd& norms = A.passes().row_norms();
  const double largest = A.communicator().max(norms.size() == 0 ? 0.0 : norms.maxCoeff());
  return largest > kSmallest && largest < kLargest ? 1 : std::isfinite(largest) && largest > 0 ? scale_for(largest) : 1;
}

MatrixXd exact_gram(const RowMatrix& A, const VectorXd& scales) {
  const Index n = A.columns(), size = n * (n + 1) / 2;
  const VectorXd of_columns = scales.size() > 0 ? scales : VectorXd::Ones(n);
  const double largest = column_sizes(A).cwiseProduct(of_columns).maxCoeff();
  const double bound = largest * largest * static_cast<double>(A.rows_global());
  if (!(bound < 0x1p1000))
    refuse("X has an entry of size " + text_of(largest) + ": X X^T would overflow, scale X down");
  const ExactSum zero(size, bound, std::max<std::int64_t>(A.rows_global(), 1));
  ExactSum sum = A.passes().pass(zero, [&](const Tile& tile, ExactSum& part) {
    const RowMajorMatrix rows = tile.dense() * of_columns.asDiagonal();
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
  const VectorXd scale = VectorXd::NullaryExpr(n, [&](Index i) { return scale_for(std::sqrt(K(i, i))); });
  SymmetricEigen eigen = symmetric_eigen(scale.asDiagonal() * K * scale.asDiagonal(), true);
  if (!eigen.finite || !(eigen.values[n - 1] > 0)) return MatrixXd(n, 0);
  const double size = static_cast<double>(n) + std::sqrt(static_cast<double>(terms));
  const double threshold = 4 * std::numeric_limits<double>::epsilon() * size * eigen.values[n - 1];
  const auto null = std::upper_bound(eigen.values.begin(), eigen.values.end(), threshold) - eigen.values.begin();
  return scale.asDiagonal() * eigen.vectors.rightCols(n - null) *
         eigen.values.tail(n - null).cwiseSqrt().cwiseInverse().asDiagonal();
}

}  // namespace attnreg
