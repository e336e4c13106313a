#include "attention/attention_passes.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

#include "kernels/gram_kernels.hpp"
#include "losses/losses.hpp"
#include "ranks/activity.hpp"
#include "ranks/once_in_process.hpp"
#include "ranks/span_of.hpp"
#include "rows/row_passes.hpp"

namespace attnreg {

namespace {

using Eigen::ArrayXd;

constexpr double kInfinity = std::numeric_limits<double>::infinity();

/// Each row minus its multiple of f that makes the row sum 0: F o (M - mu 1^T), mu = rowsum(F o M).
RowMajorMatrix centred(const RowMajorMatrix& F, const RowMajorMatrix& M) {
  const VectorXd mu = F.cwiseProduct(M).rowwise().sum();
  return F.cwiseProduct(M.colwise() - mu);
}

void add_without_values(const QueryBlock& block, const Loss& loss, const RowMajorMatrix& X, MatrixSums& sums) {
  const RowMajorMatrix Z = block.logits(X);
  RowMajorMatrix Q(Z.rows(), Z.cols());
  for_each_row(block, loss, Z, [&](Index j, LossRow& row) {
    row.differentiate();
    row.spread(row.gradient(), row_of(Q, j));
    sums[2](0, 0) += row.value();
    sums[2](0, 1) += row.misfit();
  });
  sums[2](0, 2) += block.target_square();
  if (block.is_weighted()) {
    const RowMajorMatrix W2Z = block.weights_squared().cwiseProduct(Z);
    sums[2](0, 0) += 0.5 * W2Z.cwiseProduct(Z).sum();
    Q += W2Z;
  }
  add_transposed_product(block.queries(), product(Q, block.keys()), sums[0]);
}

void add_with_values(const QueryBlock& block, const RowMajorMatrix& X, const RowMajorMatrix& V, MatrixSums& sums) {
  const RowMajorMatrix F = block.attention(X);
  const RowMajorMatrix E = product(F, V) - block.target();
  const double misfit = E.squaredNorm();
  sums[2](0, 0) += misfit;
  sums[2](0, 1) += misfit;
  sums[2](0, 2) += block.target_square();
  const RowMajorMatrix Q = 2 * centred(F, product(E, V.transpose()));
  add_transposed_product(block.queries(), product(Q, block.keys()), sums[0]);
  add_transposed_product(product(F, block.values()), 2 * E, sums[1]);
}

void add_product_without_values(const QueryBlock& block, const Loss& loss, const RowMajorMatrix& X,
                                const RowMajorMatrix& dX, MatrixSums& sums) {
  const RowMajorMatrix Z = block.logits(X);
  RowMajorMatrix T = block.logits(dX), W2T;
  if (block.is_weighted()) W2T = block.weights_squared().cwiseProduct(T);
  for_each_row(block, loss, Z, [&](Index j, LossRow& row) {
    row.differentiate();
    row.multiply_hessian(row_of(T, j));
  });
  if (block.is_weighted()) T += W2T;
  add_transposed_product(block.queries(), product(T, block.keys()), sums[0]);
}

/// The formulas of docs/attention.md, "One layer".
void add_product_with_values(const QueryBlock& block, const AttentionUnknowns& at, const AttentionUnknowns& direction,
                             const RowMajorMatrix& V, const RowMajorMatrix& dV, MatrixSums& sums) {
  const RowMajorMatrix F = block.attention(at.X);
  const RowMajorMatrix dF = centred(F, block.logits(direction.X));
  const RowMajorMatrix E = product(F, V) - block.target();
  const RowMajorMatrix dE = product(dF, V) + product(F, dV);
  const RowMajorMatrix M = product(E, V.transpose());
  const RowMajorMatrix dM = product(dE, V.transpose()) + product(E, dV.transpose());
  const VectorXd mu = F.cwiseProduct(M).rowwise().sum();
  const VectorXd dmu = (dF.cwiseProduct(M) + F.cwiseProduct(dM)).rowwise().sum();
  const RowMajorMatrix Q = 2 * (dF.cwiseProduct(M.colwise() - mu) + F.cwiseProduct(dM.colwise() - dmu));
  add_transposed_product(block.queries(), product(Q, block.keys()), sums[0]);
  add_transposed_product(product(F, block.values()), 2 * dE, sums[1]);
  add_transposed_product(product(dF, block.values()), 2 * E, sums[1]);
}

/// What each displacement adds to `changes`.
void add_changes_without_values(const QueryBlock& block, const Loss& loss, const RowMajorMatrix& X,
                                const std::vector<AttentionUnknowns>& displacements, VectorXd& changes) {
  const RowMajorMatrix Z = block.logits(X);
  std::vector<RowMajorMatrix> moves;
  for (const auto& displacement : displacements) {
    const RowMajorMatrix& Y = moves.emplace_back(block.logits(displacement.X));
    if (block.is_weighted())
      changes[std::ssize(moves) - 1] +=
          (block.weights_squared().array() * Y.array() * (Z.array() + 0.5 * Y.array())).sum();
  }
  for_each_row(block, loss, Z, [&](Index j, const LossRow& row) {
    for (std::size_t k = 0; k < moves.size(); ++k) changes[static_cast<Index>(k)] += row.change(row_of(moves[k], j));
  });
}

double change_with_values(const QueryBlock& block, const RowMajorMatrix& F, RowMajorMatrix Y, const RowMajorMatrix& V,
                          const RowMajorMatrix& dV) {
  std::vector<Index> visible;
  for (Index j = 0; j < Y.rows(); ++j) {
    block.list_visible(j, visible);
    if (visible.empty()) {
      softmax_change(F.row(j).transpose().array(), row_of(Y, j));
    } else {  // a hidden key's exponential could overflow
      ArrayXd y = gathered(row_of(Y, j), visible);
      softmax_change(gathered(F.row(j).transpose().array(), visible), y);
      scatter(y, visible, row_of(Y, j));
    }
  }
  const RowMajorMatrix E = product(F, V) - block.target();
  const RowMajorMatrix dE = product(Y, V + dV) + product(F, dV);
  return dE.cwiseProduct(2 * E + dE).sum();
}

}  // namespace

RowMajorMatrix product(const Eigen::Ref<const RowMajorMatrix>& S, const RowMajorMatrix& P) {
  RowMajorMatrix result = RowMajorMatrix::Zero(S.rows(), P.cols());
  if (result.size() == 0 || S.cols() == 0) return result;
  if (S.outerStride() != S.cols()) return product(RowMajorMatrix(S), P);
  kernels::add_matrix_product(S.data(), S.rows(), S.cols(), P.data(), P.cols(), false, result.data());
  return result;
}

void add_transposed_product(const Eigen::Ref<const RowMajorMatrix>& S, const RowMajorMatrix& P,
                            Eigen::Ref<RowMajorMatrix> sum) {
  if (sum.size() == 0) return;
  const RowMajorMatrix transposed = S.transpose();
  kernels::add_matrix_product(transposed.data(), S.cols(), S.rows(), P.data(), P.cols(), false, sum.data());
}

SequenceView::SequenceView(const AttentionSequence& of, int rank, bool may_centre)
    : sequence(&of), centre(VectorXd::Zero(of.keys.cols())) {
  const Index n2 = of.keys.rows();
  VectorXd counts = VectorXd::Ones(n2);
  if (of.mask) {
    visible.emplace(*of.mask, of.partition, rank, n2);
    counts = visible->counts(0, visible->rows());
  }
  const bool all = (counts.array() > 0).all();
  const auto seen = [&](const RowMajorMatrix& matrix) {
    RowMajorMatrix result = matrix;
    for (Index key = 0; key < n2; ++key)
      if (counts[key] == 0) result.row(key).setZero();
    return result;
  };
  if (!all) seen_keys = seen(of.keys);
  if (!all && of.values) seen_values = seen(*of.values);
  if (may_centre) centre_keys(counts);
  keys_transposed = keys().transpose();
}

void SequenceView::centre_keys(const VectorXd& counts) {
  constexpr double kFarFromZero = 16;  // |mean| / deviation: nearer ones lose about a digit
  Index first = 0;
  while (first < counts.size() && counts[first] == 0) ++first;
  if (first == counts.size()) return;
  const VectorXd seen = (counts.array() > 0).cast<double>();
  const double number = seen.sum();
  const RowMajorMatrix moved = seen.asDiagonal() * (keys().rowwise() - keys().row(first));
  const VectorXd moved_mean = moved.colwise().sum().transpose() / number;
  for (Index j = 0; j < centre.size(); ++j) {
    const double mean = keys()(first, j) + moved_mean[j];
    const double spread = (moved.col(j) - moved_mean[j] * seen).norm() / std::sqrt(number);
    if (std::isfinite(mean) && std::abs(mean) > kFarFromZero * spread) centre[j] = mean;
  }
  if (!centre.isZero(0)) seen_keys = keys() - seen * centre.transpose();
}

double QueryBlock::target_square() const {
  if (!is_masked() || view->sequence->values) return target().squaredNorm();
  RowMajorMatrix B = target();
  hide(B);
  return B.squaredNorm();
}

RowMajorMatrix QueryBlock::weights_squared() const {
  RowMajorMatrix result = part(*view->sequence->weights).cwiseAbs2();
  hide(result);
  return result;
}

RowMajorMatrix QueryBlock::logits(const RowMajorMatrix& X) const {
  RowMajorMatrix Z = product(product(queries(), X), keys_transposed());
  hide(Z);
  return Z;
}

RowMajorMatrix QueryBlock::attention(const RowMajorMatrix& X) const {
  RowMajorMatrix F = logits(X);
  std::vector<Index> visible;
  for (Index j = 0; j < F.rows(); ++j) {
    list_visible(j, visible);
    if (visible.empty()) {
      softmax_row(row_of(F, j), row_of(F, j));
    } else {
      ArrayXd z = gathered(row_of(F, j), visible);
      softmax_row(z, z);
      scatter(z, visible, row_of(F, j));
    }
  }
  return F;
}

MatrixSums::MatrixSums(const std::vector<std::pair<Index, Index>>& shapes) : shapes_(shapes) {
  Index size = 0;
  for (const auto& [rows, columns] : shapes) {
    first_.push_back(size);
    size += rows * columns;
  }
  numbers_ = VectorXd::Zero(size);
}

AttentionPasses::AttentionPasses(const Communicator& communicator, const std::vector<AttentionSequence>& sequences,
                                 const AttentionShape& shape, std::string_view loss)
    : communicator_(communicator), shape_(shape), loss_(make_loss(loss)), clock_(communicator) {
  views_.reserve(sequences.size());
  for (const auto& sequence : sequences)
    views_.emplace_back(sequence, communicator.rank(), loss_->is_shift_invariant() && !sequence.weights);
  for (std::size_t k = 0; k < sequences.size(); ++k) {
    const auto& sequence = sequences[k];
    const Index n2 = sequence.keys.rows(), block = tile_rows(n2);
    rows_ += static_cast<double>(sequence.partition.rows_global());
    logits_ += static_cast<double>(sequence.partition.rows_global()) * static_cast<double>(n2);
    const auto own = static_cast<double>(sequence.queries.rows());
    own_rows_ += own;
    products_ += own * static_cast<double>(n2 * 2 * sequence.keys.cols());
    for (Index first = 0; first < sequence.queries.rows(); first += block)
      blocks_.push_back({&views_[k], k, first, std::min(block, sequence.queries.rows() - first)});
  }
}

MatrixSums AttentionPasses::sum(const std::vector<std::pair<Index, Index>>& shapes, const Add& add, Receiver receiver,
                                OnStop on_stop) {
  constexpr double kLeast = 1 << 22, kWorthSum = 1024;  // products in a part of a block, and in sizes of its sums
  MatrixSums zero(shapes);
  const auto numbers = static_cast<double>(zero.numbers().size());
  const int count = RowPasses::parts(products_ + own_rows_ * numbers, std::max(kLeast, kWorthSum * numbers));
  std::vector<MatrixSums> parts(static_cast<std::size_t>(count - 1), zero);
  parts.push_back(std::move(zero));
  const InWork pass("pass", "blocks", static_cast<double>(blocks_.size()));
  RowPasses::share(count, std::ssize(blocks_), [&](int part, Index first, Index last) {
    for (Index k = first; k < last; ++k) {
      if (on_stop == OnStop::leave && communicator_.is_asked_to_stop()) return;
      add(blocks_[static_cast<std::size_t>(k)], parts[static_cast<std::size_t>(part)]);
      InWork::add(1);
    }
  });
  VectorXd& total = parts[0].numbers();
  for (std::size_t k = 1; k < parts.size(); ++k) total += parts[k].numbers();
  if (receiver == Receiver::all) {
    const Index size = total.size();
    total.conservativeResize(size + 1);
    total[size] = RootClock::part(communicator_, clock_.seconds());
    communicator_.sum(span_of(total));
    seconds_ = RootClock::seconds_of(communicator_, total[size]);
    total.conservativeResize(size);
  } else {
    communicator_.sum_to_root(span_of(total));
  }
  count_ += 1;
  return std::move(parts[0]);
}

ValueRows AttentionPasses::value_rows(const RowMajorMatrix& Y) const {
  const auto made = [&] {
    auto rows = std::make_shared<std::vector<RowMajorMatrix>>();
    for (const auto& view : views_)
      if (view.sequence->values) rows->push_back(product(view.values(), Y));
    return rows;
  };
  // Which values are seen depends on a block's queries.
  const bool are_shared = with_values() && std::ranges::none_of(views_, [](const auto& v) { return bool(v.visible); });
  return are_shared ? once_in_process(communicator_, made) : made();
}

std::vector<VectorXd> AttentionPasses::seen() const {
  std::vector<VectorXd> counts;
  Index all = 0;
  for (const auto& view : views_) {
    const Index rows = view.sequence->queries.rows(), keys = view.sequence->keys.rows();
    counts.push_back(view.visible ? view.visible->counts(0, rows)
                                  : VectorXd::Constant(keys, static_cast<double>(rows)));
    all += keys;
  }
  VectorXd numbers(all);
  Index first = 0;
  for (const auto& of_keys : counts) {
    numbers.segment(first, of_keys.size()) = of_keys;
    first += of_keys.size();
  }
  communicator_.sum(span_of(numbers));
  first = 0;
  for (auto& of_keys : counts) {
    of_keys = numbers.segment(first, of_keys.size());
    first += of_keys.size();
  }
  return counts;
}

AttentionPasses::Evaluation AttentionPasses::evaluate(const AttentionUnknowns& at) {
  const ValueRows V = value_rows(at.Y);
  auto sums =
      sum({{shape_.d1, shape_.d2}, {shape_.d3, shape_.dv}, {1, 3}}, [&](const QueryBlock& block, MatrixSums& part) {
        with_values() ? add_with_values(block, at.X, (*V)[block.index], part)
                      : add_without_values(block, *loss_, at.X, part);
      });
  const double value = sums[2](0, 0);
  return {std::isfinite(value) ? value : kInfinity, {sums[0], sums[1]}, sums[2](0, 1), sums[2](0, 2)};
}

AttentionUnknowns AttentionPasses::hessian_product(const AttentionUnknowns& at, const AttentionUnknowns& direction,
                                                   OnStop on_stop) {
  const ValueRows V = value_rows(at.Y), dV = value_rows(direction.Y);
  const auto add = [&](const QueryBlock& block, MatrixSums& part) {
    if (with_values())
      add_product_with_values(block, at, direction, (*V)[block.index], (*dV)[block.index], part);
    else
      add_product_without_values(block, *loss_, at.X, direction.X, part);
  };
  auto sums = sum({{shape_.d1, shape_.d2}, {shape_.d3, shape_.dv}}, add, Receiver::all, on_stop);
  return {sums[0], sums[1]};
}

std::vector<double> AttentionPasses::changes(const AttentionUnknowns& at,
                                             const std::vector<AttentionUnknowns>& displacements) {
  const ValueRows V = value_rows(at.Y);
  std::vector<ValueRows> dV;
  for (const auto& displacement : displacements) dV.push_back(value_rows(displacement.Y));
  auto sums = sum({{1, static_cast<Index>(displacements.size())}}, [&](const QueryBlock& block, MatrixSums& part) {
    if (!with_values()) return add_changes_without_values(block, *loss_, at.X, displacements, part.numbers());
    const RowMajorMatrix F = block.attention(at.X);
    for (std::size_t k = 0; k < displacements.size(); ++k)
      part[0](0, static_cast<Index>(k)) +=
          change_with_values(block, F, block.logits(displacements[k].X), (*V)[block.index], (*dV[k])[block.index]);
  });
  std::vector<double> changes;
  for (const double change : sums.numbers()) changes.push_back(std::isfinite(change) ? change : kInfinity);
  return changes;
}

std::pair<RowMajorMatrix, RowMajorMatrix> AttentionPasses::normal_equations(const RowMajorMatrix& X) {
  auto sums = sum({{shape_.d3, shape_.d3}, {shape_.d3, shape_.dv}}, [&](const QueryBlock& block, MatrixSums& part) {
    const RowMajorMatrix K = product(block.attention(X), block.values());
    add_transposed_product(K, K, part[0]);
    add_transposed_product(K, block.target(), part[1]);
  });
  return {sums[0], sums[1]};
}

AttentionUnknowns AttentionPasses::gradient_rounding(const AttentionUnknowns& at) {
  const ValueRows V = value_rows(at.Y);
  auto sums = sum({{shape_.d1, shape_.d2}, {shape_.d3, shape_.dv}}, [&](const QueryBlock& block, MatrixSums& part) {
    const RowMajorMatrix Z = block.logits(at.X), T = product(block.queries(), at.X);
    const RowMajorMatrix keys = block.keys().cwiseAbs(), queries = block.queries().cwiseAbs();
    const RowMajorMatrix terms = product(T.cwiseAbs(), keys.transpose());
    RowMajorMatrix argument = (1 + (Z.cwiseAbs() + terms).array()).matrix();
    block.hide(argument);
    RowMajorMatrix R(Z.rows(), Z.cols());
    if (with_values()) {
      const RowMajorMatrix F = block.attention(at.X), O = product(F, (*V)[block.index]);
      const RowMajorMatrix size = O.cwiseAbs() + block.target().cwiseAbs();
      const RowMajorMatrix M = product(size, (*V)[block.index].cwiseAbs().transpose());
      R = 2 * F.cwiseProduct(M).cwiseProduct(argument);
      add_transposed_product(product(F, block.values().cwiseAbs()), 2 * size, part[1]);
    } else {
      RowMajorMatrix D(Z.rows(), Z.cols());
      for_each_row(block, *loss_, Z, [&](Index j, LossRow& row) {
        row.differentiate();
        row.spread(row.gradient().abs(), row_of(R, j));
        row.spread(row.model().delta, row_of(D, j));
      });
      if (block.is_weighted()) D += block.weights_squared();
      R += D.cwiseProduct(argument);
    }
    add_transposed_product(queries, product(R, keys), part[0]);
  });
  return {sums[0], sums[1]};
}

}  // namespace attnreg
