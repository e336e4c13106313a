#include <algorithm>
#include <cmath>
#include <string>

#include "attnreg/apply_attention.hpp"
#include "errors/printable.hpp"
#include "errors/refuse.hpp"
#include "experiments/experiments.hpp"
#include "numbers/random.hpp"
#include "ranks/span_of.hpp"

namespace attnreg::experiments {

namespace {

/// `columns` Rademacher vectors of the draw, functions of (seed, draw).
MatrixXd random_signs(std::uint64_t seed, std::int64_t draw, Index rows, Index columns) {
  const RandomStream random(seed, Purpose::experiment_signs);
  MatrixXd signs(rows, columns);
  for (Index k = 0; k < signs.size(); k += 128) {
    const auto bits = random.bits(draw, static_cast<std::uint32_t>(k / 128));
    for (Index j = k; j < std::min(k + 128, signs.size()); ++j)
      signs.data()[j] = (bits[static_cast<std::size_t>((j - k) / 32)] >> ((j - k) % 32)) & 1 ? 1 : -1;
  }
  return signs;
}

/// The n x d matrix A of Definition 6.1; token j3 is the one in the middle.
RowMatrix tokens(const Communicator& communicator, const PolynomialAttention& options, double a) {
  const std::int64_t kinds = options.columns - 2, n = kinds * options.copies;
  const auto partition = RowPartition::tiled(n, options.columns, communicator.size());
  const std::int64_t first = partition.begin(communicator.rank());
  RowMajorMatrix rows = RowMajorMatrix::Zero(partition.rows_local(communicator.rank()), options.columns);
  for (Index i = 0; i < rows.rows(); ++i) {
    if (first + i == n / 2) rows(i, 0) = a;
    rows(i, static_cast<Index>(1 + (first + i) % kinds)) = options.b;
    rows(i, options.columns - 1) = options.c;
  }
  return RowMatrix(communicator, partition, std::move(rows));
}

struct Firing {
  double margin = 0;  ///< largest <row of P V, y> over all rows and sign vectors, less tau
  double fires = 0;   ///< fraction of the draws
};

AttentionKernel power(std::int64_t degree) { return {AttentionKernel::Kind::polynomial, degree, 1}; }

/// Collective. Of attention with Q = K = V = A.
Firing attend(const RowMatrix& A, const PolynomialAttention& options, std::int64_t degree,
              const std::vector<MatrixXd>& signs) {
  const Communicator& communicator = A.communicator();
  const RowMajorMatrix output = apply_attention(A, A, A, power(degree)).output;
  Firing result;
  const double tau = options.c + options.theta;
  const double largest = output.rows() > 0 ? output.cwiseAbs().rowwise().sum().maxCoeff() : 0;
  result.margin = communicator.max(largest) - tau;
  VectorXd fired(static_cast<Index>(signs.size()));
  for (Index draw = 0; draw < fired.size(); ++draw)
    fired[draw] = ((output * signs[static_cast<std::size_t>(draw)]).array() > tau).any() ? 1 : 0;
  communicator.sum({fired.data(), signs.size()});
  result.fires = static_cast<double>((fired.array() > 0).count()) / static_cast<double>(fired.size());
  return result;
}

/// Collective. P_jj of token j3.
double token_share(const RowMatrix& A, std::int64_t degree) {
  const AttentionRows P(A, A, power(degree));
  const std::int64_t token = A.rows_global() / 2, local = token - A.first_row();
  double share = 0;
  A.communicator().agree([&] {
    if (local >= 0 && local < A.rows_local()) share = P.rows(local, 1)(0, token);
  });
  return A.communicator().sum(share);
}

std::vector<MatrixXd> all_signs(const PolynomialAttention& options, Index columns) {
  std::vector<MatrixXd> signs;
  for (int draw = 0; draw < options.draws; ++draw)
    signs.push_back(random_signs(options.seed, draw, columns, options.networks));
  return signs;
}

void check(const PolynomialAttention& options) {
  require(options.columns >= 3 && options.copies >= 1, "the tokens need d >= 3 columns and n = (d - 2) t rows, t >= 1");
  require(options.c != 0, "c must not be 0");
  require(options.draws >= 1 && options.networks >= 1, "at least one draw is needed");
  for (const double value : {options.a0, options.a1, options.b, options.c, options.theta})
    require(std::isfinite(value), "a, b, c and theta must be finite");
  require(!options.degrees.empty() && std::ranges::min(options.degrees) >= 1, "degrees must be at least 1");
}

double closed_share(const PolynomialAttention& options, double a, double degree) {
  const double c2 = options.c * options.c, k = (options.b * options.b + c2) / c2, rho = k + a * a / c2;
  const auto t = static_cast<double>(options.copies), n = static_cast<double>(options.columns - 2) * t;
  // Divided by rho^degree, which may overflow.
  return 1 / (1 + (t - 1) * std::exp(degree * std::log(k / rho)) + (n - t) * std::exp(-degree * std::log(rho)));
}

/// P(N(0, 1) > x).
double normal_tail(double x) { return std::erfc(x / std::sqrt(2.0)) / 2; }

/// The entries of A x: uniform in [1, h0], functions of (seed, draw); D_1 has h1 in the middle.
VectorXd entries(const PolynomialVector& options, std::int64_t draw, bool with_large) {
  const RandomStream random(options.seed, Purpose::experiment_data);
  VectorXd h(options.rows);
  for (Index i = 0; i < h.size(); ++i)
    h[i] = 1 + (options.h0 - 1) * random.uniform(draw, static_cast<std::uint32_t>(i));
  if (with_large) h[h.size() / 2] = options.h1;
  return h;
}

VectorXd powers(const VectorXd& h, std::int64_t degree) {
  const VectorXd logarithms = static_cast<double>(degree) * h.array().log();
  const VectorXd u = (logarithms.array() - logarithms.maxCoeff()).exp();
  return u / u.sum();
}

double predicted_fire(const VectorXd& f, double tau, int networks) {
  const double large = f[f.size() / 2], rest = std::sqrt(std::max(f.squaredNorm() - large * large, 0.0));
  const auto tail = [&](double mean) { return rest > 0 ? normal_tail((tau - mean) / rest) : (mean > tau ? 1.0 : 0.0); };
  return 1 - std::pow(1 - (tail(large) + tail(-large)) / 2, networks);
}

}  // namespace

Table polynomial_attention(const Communicator& communicator, const PolynomialAttention& options) {
  check(options);
  Table table{"polynomial-attention",
              "Polynomial attention, n = " + std::to_string((options.columns - 2) * options.copies) + ", d = " +
                  std::to_string(options.columns) + ", a = " + text_of(options.a0) + " or " + text_of(options.a1) +
                  ", b = " + text_of(options.b) + ", c = " + text_of(options.c) + ", theta = " + text_of(options.theta),
              {"degree", "share", "closed_share", "margin0", "margin1", "closed_margin1", "fires0", "fires1"},
              {},
              {}};
  const std::vector<MatrixXd> signs = all_signs(options, options.columns);
  const RowMatrix D0 = tokens(communicator, options, options.a0), D1 = tokens(communicator, options, options.a1);
  for (const std::int64_t degree : options.degrees) {
    const Firing zero = attend(D0, options, degree, signs), one = attend(D1, options, degree, signs);
    const double share = token_share(D1, degree);
    const double closed = closed_share(options, options.a1, static_cast<double>(degree));
    table.rows.push_back({static_cast<double>(degree), share, closed, zero.margin, one.margin,
                          std::abs(options.a1) * closed + std::abs(options.b) - options.theta, zero.fires, one.fires});
  }
  table.reading = {
      "share: what the special token of D_1 gives to itself, measured; closed_share: its closed form",
      "margin: by how much some sign vector passes the threshold; below 0 none does, and the set can never fire",
      "the degrees with margin0 <= 0 < margin1 separate D_0 from D_1; fires: measured, fractions of the draws"};
  return table;
}

Table polynomial_sets(const RowMatrix& D0, const RowMatrix& D1, const PolynomialAttention& options) {
  check(options);
  require(D0.columns() == D1.columns(), "D_0 has " + std::to_string(D0.columns()) + " columns and D_1 " +
                                            std::to_string(D1.columns()) + "; the sets need as many");
  Table table{
      "polynomial-attention",
      "Polynomial attention of two sets, " + std::to_string(D0.rows_global()) + " and " +
          std::to_string(D1.rows_global()) + " tokens, d = " + std::to_string(D0.columns()) + ", threshold " +
          text_of(options.c + options.theta),
      {"degree", "margin0", "margin1", "gap", "fires0", "fires1"},
      {},
      {"margin: by how much some sign vector passes the threshold; below 0 none does, and the set can never fire",
       "gap: margin1 - margin0; where it is above 0 some threshold separates the sets"}};
  const std::vector<MatrixXd> signs = all_signs(options, D0.columns());
  for (const std::int64_t degree : options.degrees) {
    const Firing zero = attend(D0, options, degree, signs), one = attend(D1, options, degree, signs);
    table.rows.push_back(
        {static_cast<double>(degree), zero.margin, one.margin, one.margin - zero.margin, zero.fires, one.fires});
  }
  return table;
}

Table polynomial_vector(const Communicator& communicator, const PolynomialVector& options) {
  MatrixXd sums = MatrixXd::Zero(3, static_cast<Index>(options.degrees.size()));
  for (int draw = communicator.rank(); draw < options.draws; draw += communicator.size()) {
    const MatrixXd signs = random_signs(options.seed, draw, options.rows, options.networks);
    const VectorXd h[] = {entries(options, draw, false), entries(options, draw, true)};
    for (std::size_t k = 0; k < options.degrees.size(); ++k) {
      const auto column = static_cast<Index>(k);
      for (const Index set : {0, 1}) {
        const VectorXd f = powers(h[set], options.degrees[k]);
        if (((signs.transpose() * f).array() > options.tau).any()) sums(set, column) += 1;
        if (set == 1) sums(2, column) += predicted_fire(f, options.tau, options.networks);
      }
    }
  }
  communicator.sum(span_of(sums));
  Table table{"polynomial-vector",
              "Polynomial vectors, n = " + std::to_string(options.rows) + ", h = " + text_of(options.h0) + " or " +
                  text_of(options.h1) + ", tau = " + text_of(options.tau) + ", m = " + std::to_string(options.networks),
              {"degree", "fires0", "fires1", "predicted1"},
              {},
              {"fires: fractions of the draws; predicted1: by a normal approximation of the sum of the small entries"}};
  for (std::size_t k = 0; k < options.degrees.size(); ++k) {
    const VectorXd means = sums.col(static_cast<Index>(k)) / options.draws;
    table.rows.push_back({static_cast<double>(options.degrees[k]), means[0], means[1], means[2]});
  }
  return table;
}

}  // namespace attnreg::experiments
