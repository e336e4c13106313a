#include "rows/gram.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <span>
#include <utility>

#include "kernels/csr_kernels.hpp"
#include "kernels/gram_kernels.hpp"
#include "ranks/activity.hpp"
#include "ranks/span_of.hpp"
#include "rows/row_passes.hpp"

namespace attnreg {

namespace {

/// Products of columns, in sizes of the sum, that make a part of a block worth a sum of its own.
constexpr double kWorthSum = 1024;

/// out += what `add(first, last, sum)` makes of the parts [first, last) of `count` things, in their order. A single
/// part is added where it belongs.
template <class Plain, class Matrix, class Add>
void add_by_parts(int parts, Index count, Matrix& out, Add&& add) {
  if (parts == 1) return add(Index{0}, count, out);
  std::vector<Plain> sums(static_cast<std::size_t>(parts));
  RowPasses::share(parts, count, [&](int part, Index first, Index last) {
    if (first == last) return;
    auto& sum = sums[static_cast<std::size_t>(part)];
    sum = Plain::Zero(out.rows(), out.cols());
    add(first, last, sum);
  });
  for (const auto& sum : sums)
    if (sum.size() != 0) out += sum;
}

/// Whether the rest of the rows is left out.
class Leaves {
 public:
  Leaves() = default;
  Leaves(const RowMatrix& A, OnStop on_stop) : A_(on_stop == OnStop::leave ? &A : nullptr) {}
  explicit operator bool() const { return is_in_vain() || (A_ != nullptr && A_->communicator().is_asked_to_stop()); }

 private:
  const RowMatrix* A_ = nullptr;
};

template <class Number>
std::span<const Number> between(const std::vector<Number>& values, Index first, Index last) {
  return std::span(values).subspan(static_cast<std::size_t>(first), static_cast<std::size_t>(last - first));
}

template <class Use>
void with_sparse(const RowMatrix& A, Use&& use) {
  const CsrView& rows = *A.passes().sparse();
  kernels::with_block(rows, 0, rows.rows(), use);
}

/// Of so many rows, about: sum of (their entries)^power.
double sparse_products(const RowMatrix& A, Index rows, int power) {
  const auto all = static_cast<double>(std::max<Index>(A.rows_local(), 1));
  return static_cast<double>(rows) * std::pow(static_cast<double>(A.entries_local()) / all, power);
}

/// `add(first, last)` for so many rows in [first, last) at a time that they take less than half a second.
template <class Add>
void add_sparse_rows(const RowMatrix& A, Index first, Index last, const Leaves& leaves, Add&& add) {
  constexpr double kProducts = 0x1p27;
  const auto step = static_cast<Index>(std::clamp(kProducts / std::max(sparse_products(A, 1, 2), 1.0), 1.0, 0x1p30));
  for (; first < last && !leaves; first += step) add(first, std::min(first + step, last));
}

/// The |delta| of all but 64 rows at most is not larger.
double light_weight(const WeightedRows& rows) { return rows.curvature.cwiseAbs().sum() / 64; }

/// The terms of the rows of one sign, times this sign. Each is completed to a square: with s = delta + ridge and
/// t = m / s it is
///
///     s (a - t c)(a - t c)^T + (k - m t) c c^T.
///
/// Sparse rows, which centring would fill, are not: their squares are s a a^T, and the rest follows from sum m a. Few
/// of large weight are, since c is next to them and the rest would cancel.
struct Squares {
  struct Rows {
    std::vector<Index> numbers;           // with s != 0
    std::vector<double> weights, shares;  // s and t

    Index count() const { return static_cast<Index>(numbers.size()); }
  };
  Rows centred, sparse;
  VectorXd centre, crossed;  // c; sum m a of sparse rows, else 0
  double factor = 0;         // of c c^T in the rest

  Squares(const RowMatrix& A, const WeightedRows& given, const VectorXd& c, double sign)
      : centre(c), crossed(VectorXd::Zero(c.size())) {
    const bool is_coupled = given.coupling.size() != 0;
    const double light = light_weight(given);
    std::vector<double> couplings;
    for (Index i = 0; i < given.curvature.size(); ++i) {
      const double delta = given.curvature[i], ridge = given.ridge.size() == 0 ? 0 : given.ridge[i];
      const double m = is_coupled ? given.coupling[i] : delta, k = is_coupled ? given.self[i] : delta;
      const double s = delta + ridge, t = s == 0 ? 0 : m / s;
      if ((s < 0) != (sign < 0)) continue;  // what is not a number is positive
      const bool stays_sparse = A.is_sparse() && !(std::abs(delta) > light);
      if (stays_sparse)
        factor += sign * k;
      else if (is_coupled)
        factor += k - m * t;
      else if (s != 0)
        factor += delta * ridge / s;  // k - m t without cancellation
      if (s == 0) continue;
      Rows& rows = stays_sparse ? sparse : centred;
      rows.numbers.push_back(given.chosen ? (*given.chosen)[static_cast<std::size_t>(i)] : i);
      rows.weights.push_back(sign * s);
      rows.shares.push_back(t);
      if (stays_sparse) couplings.push_back(sign * m);
    }
    if (sparse.count() == 0 || centre.isZero(0)) return;
    const int parts = RowPasses::parts(sparse_products(A, sparse.count(), 1));
    add_by_parts<VectorXd>(parts, sparse.count(), crossed, [&](Index first, Index last, VectorXd& sum) {
      with_sparse(A, [&](const auto& block) {
        for (auto k = static_cast<std::size_t>(first); k < static_cast<std::size_t>(last); ++k)
          kernels::add_scaled_row(block, sparse.numbers[k], couplings[k], sum.data());
      });
    });
  }

  bool are_none() const { return centred.count() == 0 && !has_rest(); }
  bool has_rest() const { return sparse.count() > 0 || factor != 0; }

  /// Adds to entry (i, j) what is not in the squares.
  void add_rest(Index i, Index j, double& entry) const {
    entry += (factor * centre[i] - crossed[i]) * centre[j];
    entry -= centre[i] * crossed[j];
  }
};

/// Calls `use` with |s|^{1/2} (a - t c) of some centred rows at a time, from a column on.
template <class Use>
void gather(const RowMatrix& A, const Squares& squares, Index first_column, Index at_once, const Leaves& leaves,
            Use&& use) {
  const Index width = A.columns() - first_column;
  const Squares::Rows& rows = squares.centred;
  RowMajorMatrix gathered;
  const InWork gram("Gram matrix", "rows", static_cast<double>(rows.count()));
  for (Index first = 0; first < rows.count() && !leaves; first += at_once) {
    const Index last = std::min(first + at_once, rows.count());
    gathered.resize(last - first, width);
    A.passes().visit_rows(between(rows.numbers, first, last), [&](std::size_t position, std::span<const double> row) {
      const std::size_t k = static_cast<std::size_t>(first) + position;
      const double scale = std::sqrt(rows.weights[k]);
      auto out = gathered.row(static_cast<Index>(position));
      out = scale * Eigen::Map<const Eigen::RowVectorXd>(row.data(), A.columns()).tail(width);
      out -= scale * rows.shares[k] * squares.centre.tail(width).transpose();
    });
    use(gathered);
    InWork::add(last - first);
  }
}

using Triangle = Eigen::Map<RowMajorMatrix>;

void add_dense_gram(const RowMajorMatrix& P, Triangle lower, const Leaves& leaves) {
  constexpr Index kRows = 512;
  constexpr double kProducts = 0x1p31;  // of a call of the kernel, about
  const Index d = P.cols(), blocks = (P.rows() + kRows - 1) / kRows;
  const Index depth = kernels::gram_depth();
  const auto products = static_cast<double>(depth * std::max<Index>(d * d, 1));
  const auto run = depth * static_cast<Index>(1 + kProducts / products);
  const int parts = RowPasses::parts(static_cast<double>(P.rows()), kWorthSum);
  add_by_parts<RowMajorMatrix>(parts, blocks, lower, [&](Index first, Index last, auto& sum) {
    const Index begin = first * kRows, end = std::min(last * kRows, P.rows());
    for (Index row = begin; row < end && !leaves; row += run)
      kernels::add_gram(P.data() + row * d, std::min(run, end - row), d, sum.data());
  });
}

void add_squares(const RowMatrix& A, const Squares& squares, Triangle lower, const Leaves& leaves) {
  constexpr Index kGathered = 4096;
  constexpr double kScattered = 16;  // of the time of a product in a dense kernel
  if (squares.are_none()) return;
  if (A.is_sparse()) {
    const Squares::Rows& rows = squares.sparse;
    const double products = sparse_products(A, rows.count(), 2), size = static_cast<double>(lower.size());
    const int parts = RowPasses::parts(kScattered * products / size, kWorthSum);
    add_by_parts<RowMajorMatrix>(parts, rows.count(), lower, [&](Index begin, Index end, auto& sum) {
      with_sparse(A, [&](const auto& block) {
        add_sparse_rows(A, begin, end, leaves, [&](Index first, Index last) {
          kernels::add_gram(block, between(rows.numbers, first, last), between(rows.weights, first, last), 0,
                            sum.cols(), sum.cols(), sum.data());
        });
      });
    });
  }
  gather(A, squares, 0, kGathered, leaves, [&](const RowMajorMatrix& rows) { add_dense_gram(rows, lower, leaves); });
  if (!squares.has_rest()) return;
  for (Index i = 0; i < lower.rows(); ++i)
    for (Index j = 0; j <= i; ++j) squares.add_rest(i, j, lower(i, j));
}

/// The squares' rows and columns from `first` on, `width` columns of the lower triangle.
MatrixXd gram_panel(const RowMatrix& A, const Squares& squares, Index first, Index width, const Leaves& leaves) {
  constexpr Index kGathered = 256;
  const Index height = A.columns() - first;
  MatrixXd panel = MatrixXd::Zero(height, width);
  if (A.is_sparse()) {
    RowMajorMatrix by_rows = RowMajorMatrix::Zero(height, width);
    RowPasses::share(width, [&](int, Index begin, Index end) {
      with_sparse(A, [&](const auto& block) {
        const Squares::Rows& rows = squares.sparse;
        add_sparse_rows(A, 0, rows.count(), leaves, [&](Index from, Index to) {
          kernels::add_gram(block, between(rows.numbers, from, to), between(rows.weights, from, to), first + begin,
                            first + end, width, by_rows.data() + begin * width + begin);
        });
      });
    });
    panel = by_rows;
  }
  gather(A, squares, first, kGathered, leaves, [&](const RowMajorMatrix& rows) {
    const RowMajorMatrix transposed = rows.leftCols(width).transpose();
    RowPasses::share(width, [&](int, Index begin, Index end) {
      kernels::add_matrix_product(transposed.row(begin).data(), end - begin, rows.rows(), rows.data(), height, false,
                                  panel.col(begin).data());
    });
  });
  return panel;
}

/// Row-major, the lower triangles alone; an empty one is 0.
struct LowerTriangles {
  RowMajorMatrix positive, negative;

  LowerTriangles& operator+=(const LowerTriangles& other) {
    positive += other.positive;
    negative += other.negative;
    return *this;
  }
};

/// Of all rows of a dense A, delta (a - c)(a - c)^T: those held in double are packed where they lie, without a copy.
LowerTriangles centred_gram(const RowMatrix& A, const VectorXd& weights, const VectorXd& centre, bool has_negative,
                            const Leaves& leaves) {
  constexpr Index kEnough = 256;  // rows of a tile: fewer are worth no call of the kernel
  const Index d = A.columns();
  const auto add = [&](const Tile& tile, LowerTriangles& sums) {
    if (leaves) return;
    tile.add_signed_gram(weights.data() + tile.first_local(), centre.data(), sums.positive.data(),
                         sums.negative.data());
  };
  const auto size =
      tile_rows(A.columns()) >= kEnough || A.passes().is_transformed() ? TileSize::cached : TileSize::many;
  LowerTriangles zero{RowMajorMatrix::Zero(d, d), {}};
  if (has_negative) zero.negative = zero.positive;
  return A.passes().pass(std::move(zero), add, size, kWorthSum * static_cast<double>(d));
}

}  // namespace

OnStop on_stop_in_gram(const RowMatrix& A) {
  constexpr double kProducts = 0x1p30;
  const auto d = static_cast<double>(A.columns()), ranks = static_cast<double>(A.communicator().size());
  return static_cast<double>(A.rows_global()) * d * d / ranks > kProducts ? OnStop::leave : OnStop::finish;
}

bool is_left(const RowMatrix& A, OnStop on_stop) {
  if (on_stop == OnStop::leave) RootClock(A.communicator()).sum(A.communicator());
  return A.communicator().is_stopped();
}

WeightedRows WeightedRows::choose(std::vector<Index> rows, const VectorXd& factors) const {
  const auto of = [&](const VectorXd& values) {
    return values.size() == 0 ? VectorXd() : VectorXd(values(rows).cwiseProduct(factors));
  };
  WeightedRows some{of(curvature), of(ridge), of(coupling), of(self)};
  some.chosen = std::move(rows);
  return some;
}

void add_signed_gram(const RowMatrix& A, const WeightedRows& rows, const VectorXd& centre, double* positive,
                     double* negative, OnStop on_stop) {
  const Leaves leaves(A, on_stop);
  const Index d = A.columns();
  const VectorXd c = centre.size() == 0 ? VectorXd(VectorXd::Zero(d)) : centre;
  const bool are_centred = rows.ridge.size() == 0 && rows.coupling.size() == 0;
  const bool has_negative = (rows.curvature.array() < 0).any();
  if (!A.is_sparse() && !rows.chosen && are_centred) {
    const bool drops = has_negative && negative == nullptr;
    const auto not_negative =
        rows.curvature.unaryExpr([](double of_row) { return of_row < 0 ? 0 : of_row; });  // or NaN
    const LowerTriangles sums = drops ? centred_gram(A, not_negative, c, false, leaves)
                                      : centred_gram(A, rows.curvature, c, has_negative, leaves);
    Triangle(positive, d, d) += sums.positive;
    if (negative != nullptr && has_negative) Triangle(negative, d, d) += sums.negative;
    return;
  }
  if (!rows.chosen) A.passes().count_reads(1);
  add_squares(A, Squares(A, rows, c, 1), Triangle(positive, d, d), leaves);
  if (negative != nullptr) add_squares(A, Squares(A, rows, c, -1), Triangle(negative, d, d), leaves);
}

MatrixXd full_symmetric(const double* lower, Index d) {
  MatrixXd full = Eigen::Map<const MatrixXd>(lower, d, d);  // its transpose
  full.triangularView<Eigen::StrictlyLower>() = full.transpose();
  return full;
}

SignedGram signed_gram(const RowMatrix& A, const WeightedRows& rows, const VectorXd& centre, OnStop on_stop) {
  const Index d = A.columns();
  RowMajorMatrix positive = RowMajorMatrix::Zero(d, d), negative = positive;
  add_signed_gram(A, rows, centre, positive.data(), negative.data(), on_stop);
  return {full_symmetric(positive.data(), d), full_symmetric(negative.data(), d)};
}

MatrixXd positive_gram(const RowMatrix& A, const WeightedRows& rows, const VectorXd& centre, OnStop on_stop) {
  const Index d = A.columns();
  RowMajorMatrix lower = RowMajorMatrix::Zero(d, d);
  add_signed_gram(A, rows, centre, lower.data(), nullptr, on_stop);
  return full_symmetric(lower.data(), d);
}

DistributedMatrix distributed_gram(const RowMatrix& A, std::shared_ptr<const ProcessGrid> grid,
                                   const WeightedRows& rows, const VectorXd& centre, OnStop on_stop) {
  const Leaves leaves(A, on_stop);
  const Index d = A.columns();
  Squares squares(A, rows, centre, 1);
  DistributedMatrix gram(std::move(grid), d, d);
  for (Index first = 0; first < d; first += kPanel)
    gram.add_sum(A.communicator(), gram_panel(A, squares, first, std::min(kPanel, d - first), leaves), first, first);
  VectorXd message(d + 1);
  message << squares.crossed, squares.factor;
  A.communicator().sum(span_of(message));
  squares.crossed = message.head(d);
  squares.factor = message[d];
  gram.for_each([&](Index i, Index j, double& entry) { squares.add_rest(i, j, entry); });
  return gram;
}

double uncentred_sum(const WeightedRows& rows) {
  if (rows.coupling.size() != 0) return rows.self.sum();
  const auto light = rows.curvature.array() <= light_weight(rows);
  // c itself has a rounding.
  return light.select(rows.curvature.array(), std::numeric_limits<double>::epsilon() * rows.curvature.array()).sum();
}

double gram_reads(Index d) {
  double columns = 0;
  for (Index first = 0; first < d; first += kPanel) columns += static_cast<double>(d - first);
  return columns / static_cast<double>(d);
}

void add_gram(const RowMajorMatrix& P, RowMajorMatrix& gram) {
  add_dense_gram(P, Triangle(gram.data(), gram.rows(), gram.cols()), Leaves());
}

}  // namespace attnreg
