#include "heads/subspace_start.hpp"

#include <array>
#include <cmath>
#include <limits>

#include "algebra/dense_factors.hpp"
#include "ranks/activity.hpp"
#include "ranks/span_of.hpp"

namespace attnreg {

namespace {

constexpr double kClearGap = 3;  // if what follows looks like noise
constexpr double kNoise = 2;     // the excess of noise that is alike everywhere is 1, and less where it is rounding
constexpr double kNothing = 1e-300;
constexpr Index kLastValues = 4;  // of a spectrum: any gap may be there
constexpr std::size_t kFirstSequences = 2;
constexpr double kSingular = 1e-12;  // of a Gram matrix of rank r that is solved with, relative to its trace

/// How far the largest singular value behind rank k sticks out of noise of the same size, for which it is
/// sigma (sqrt(m) + sqrt(n)) in an m x n matrix of norm sigma sqrt(m n). Infinite in the last quarter of a spectrum,
/// where noise has gaps; 0 if only leading values are known.
double excess_over_noise(const PieceSpectrum& spectrum, Index k) {
  const double m = static_cast<double>(std::ssize(spectrum.piece.queries) - k),
               n = static_cast<double>(std::ssize(spectrum.piece.keys) - 1 - k);
  if (m <= 0 || n <= 0) return 0;
  if (4 * k > 3 * spectrum.piece.shorter_side()) return std::numeric_limits<double>::infinity();
  const double all = spectrum.values.tail(spectrum.values.size() - k).squaredNorm(), first = spectrum.values[k];
  return all > 0 ? first * first * m * n / (all * std::pow(std::sqrt(m) + std::sqrt(n), 2)) : 0;
}

/// (C C^T)^-1 CB, C r x m.
MatrixXd solved_rows(MatrixPart C, const MatrixXd& CB) {
  MatrixXd gram = gram_of_rows(C);
  gram.diagonal().array() += kSingular * gram.trace();
  Cholesky cholesky;
  if (!cholesky.factor(gram)) return MatrixXd::Zero(CB.rows(), CB.cols());
  return cholesky.solve_columns(CB);
}

}  // namespace

SubspaceStart::SubspaceStart(SubspaceFrame& frame, const HeadTarget& target) : frame_(frame) {
  const InWork work("log-odds", "pieces", static_cast<double>(frame.pieces().size()));
  for (const auto& piece : frame.pieces()) {
    log_odds_.push_back(target.log_odds(piece.rows, piece.queries, piece.keys));
    InWork::add(1);
  }
}

RankGap SubspaceStart::gap_of(const std::vector<PieceSpectrum>& spectra) const {
  Eigen::Matrix3Xd sums = Eigen::Matrix3Xd::Zero(3, frame_.largest_side());
  for (const auto& spectrum : spectra)
    for (Index k = 1; k <= spectrum.falls; ++k)
      sums.col(k - 1) += Eigen::Vector3d(
          1, std::log(std::max(spectrum.values[k - 1], kNothing) / std::max(spectrum.values[k], kNothing)),
          excess_over_noise(spectrum, k));
  frame_.inputs().communicator().sum(span_of(sums));
  RankGap largest, best;
  for (Index k = 0; k < sums.cols() && sums(0, k) > 0; ++k) {
    const RankGap gap{k + 1, std::exp(sums(1, k) / sums(0, k))};
    if (gap.ratio > largest.ratio) largest = gap;
    if (gap.ratio > best.ratio && sums(2, k) <= kNoise * sums(0, k)) best = gap;
  }
  return best.ratio > kClearGap || !largest.is_plain() ? best : largest;
}

RankGap SubspaceStart::gap_of_leading(Index rank) {
  subspaces_.clear();
  std::vector<PieceSpectrum> spectra;
  const InWork work("leading subspaces", "pieces", static_cast<double>(log_odds_.size()));
  for (const auto& L : log_odds_) {
    subspaces_.push_back(leading_subspace(L, std::min({rank, L.rows(), L.cols()})));
    const VectorXd& values = subspaces_.back().values;
    if (values.size() > rank + 1) spectra.push_back({values, {}, values.size() - 1});
    InWork::add(1);
  }
  return gap_of(spectra);
}

/// Of the first sequences.
RankGap SubspaceStart::gap_of_spectra(std::size_t sequences) const {
  std::vector<PieceSpectrum> spectra;
  const InWork work("spectra", "pieces", static_cast<double>(log_odds_.size()));
  for (std::size_t k = 0; k < log_odds_.size(); ++k) {
    InWork::add(1);
    const Piece& piece = frame_.pieces()[k];
    if (2 * piece.shorter_side() <= frame_.largest_side()) continue;
    if (frame_.inputs().rows()[piece.rows].index >= sequences) continue;
    const Index side = piece.shorter_side();
    spectra.push_back({spectrum_of(log_odds_[k]), piece, std::max(3 * side / 4, side - kLastValues)});
  }
  return gap_of(spectra);
}

RankGap SubspaceStart::rank_of_gap(Index expected) {
  if (expected > 0 && serves(expected + 1)) {
    const RankGap gap = gap_of_leading(expected);
    if (gap.rank == expected && gap.is_plain()) return gap;
  }
  const RankGap first = gap_of_spectra(kFirstSequences);
  if (first.is_plain() && first.rank != expected) {
    const RankGap gap = gap_of_leading(first.rank);
    if (gap.rank == first.rank && gap.is_plain()) return gap;
  }
  const RankGap all = gap_of_spectra(std::numeric_limits<std::size_t>::max());
  return all.ratio > kClearGap ? all : RankGap{};
}

MatrixXd SubspaceStart::intersection(Index rank, bool of_queries, Result& result) {
  const Communicator& communicator = frame_.inputs().communicator();
  const Whitening& metric = of_queries ? frame_.query_metric() : frame_.key_metric();
  MatrixXd spans(metric.W.rows(), rank * std::ssize(frame_.pieces()));
  Index used = 0;
  const InWork work("common subspace", "pieces", static_cast<double>(log_odds_.size()));
  for (std::size_t p = 0; p < log_odds_.size(); ++p) {
    const Piece& piece = frame_.pieces()[p];
    InWork::add(1);
    if (!frame_.has(piece)) continue;
    auto span = spans.middleCols(rank * used++, rank);
    if (!of_queries) {
      frame_.with_keys(
          piece, [&](MatrixPart K) { span = times(K, leading_subspace(log_odds_[p].transpose(), rank).vectors); });
    } else {
      const bool known = p < subspaces_.size() && subspaces_[p].vectors.cols() == rank;
      const MatrixXd vectors = known ? std::move(subspaces_[p].vectors) : leading_subspace(log_odds_[p], rank).vectors;
      frame_.with_queries(piece, [&](MatrixPart A) { span = times(A, vectors); });
    }
  }
  MatrixXd sum = gram_of_rows(transposed_times(metric.W, spans.leftCols(rank * used)));
  communicator.sum_to_root(span_of(sum));
  MatrixXd found(metric.W.rows(), rank);
  VectorXd values(rank + 1);
  if (communicator.is_root()) {
    const TopEigenvectors top = top_eigenvectors(sum, rank);
    found = times(metric.W, top.vectors);
    values = top.values;
  }
  communicator.broadcast(span_of(found));
  communicator.broadcast(span_of(values));
  result.last = values[rank - 1];
  result.next = values[rank];
  return found;
}

/// The Q of the X = P Q^T that fits the pieces best, if `of_queries`, P being known; else the P. In each piece on its
/// own c = (a a^T)^-1 a L^T, and Q from these c.
MatrixXd SubspaceStart::least_squares_with(const MatrixXd& known, bool of_queries) const {
  const Communicator& communicator = frame_.inputs().communicator();
  const Whitening& metric = of_queries ? frame_.key_metric() : frame_.query_metric();
  MatrixXd other = MatrixXd::Zero(metric.W.rows(), known.cols());
  for (std::size_t p = 0; p < log_odds_.size(); ++p) {
    const Piece& piece = frame_.pieces()[p];
    if (!frame_.has(piece)) continue;
    const MatrixXd& L = log_odds_[p];
    MatrixXd rows;
    if (of_queries) {
      frame_.with_queries(piece, [&](MatrixPart A) { rows = transposed_times(known, A); });
      rows = solved_rows(rows, times_transposed(rows, L));
      frame_.with_keys(piece, [&](MatrixPart K) { add_times_transposed(K, rows, other); });
    } else {
      frame_.with_keys(piece, [&](MatrixPart K) { rows = transposed_times(known, K); });
      rows.colwise() -= VectorXd(rows.rowwise().mean());
      rows = solved_rows(rows, times(rows, L));
      frame_.with_queries(piece, [&](MatrixPart A) { add_times_transposed(A, rows, other); });
    }
  }
  communicator.sum_to_root(span_of(other));
  if (communicator.is_root()) other = times(metric.W, transposed_times(metric.W, other));
  communicator.broadcast(span_of(other));
  return other;
}

SubspaceStart::Equations SubspaceStart::equations(Index rank) {
  frame_.use(rank);
  std::array<double, 2> counts{};
  for (const auto& piece : frame_.pieces()) {
    if (!frame_.has(piece)) continue;
    counts[0] += static_cast<double>(std::ssize(piece.queries) - rank);
    counts[1] += static_cast<double>(std::ssize(piece.keys) - 1 - rank);
  }
  frame_.inputs().communicator().sum(counts);
  const double k1 = static_cast<double>(frame_.query_metric().dimension()),
               k2 = static_cast<double>(frame_.key_metric().dimension());
  if (counts[0] / k1 >= counts[1] / k2) return {true, counts[0], k1};
  return {false, counts[1], k2};
}

SubspaceStart::Result SubspaceStart::find(Index rank, const Equations& equations) {
  frame_.use(rank);
  Result result;
  MatrixXd known = intersection(rank, equations.of_queries, result),
           other = least_squares_with(known, equations.of_queries);
  result.X = equations.of_queries ? HeadMatrices{std::move(known), std::move(other)}
                                  : HeadMatrices{std::move(other), std::move(known)};
  return result;
}

}  // namespace attnreg
