#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "attnreg/communicator.hpp"
#include "attnreg/row_matrix.hpp"

namespace attnreg {

/// Families of artificial problems. G is n x d with independent rows N(0, I/d), so that a logit vector G x has standard
/// deviation |x| / sqrt(d).
enum class Preset {
  easy,       ///< A = G; b = softmax(A x_true) with 5 % noise; w^2 = 100 + 1/sigma_min(A)^2: nearly a ridge regression
  practical,  ///< A = G; b = softmax(A x_true), logits of standard deviation `spread`; small w
  illcond,    ///< A = G diag(sigma) Q, sigma falling geometrically from 1 to 1/`decay`, Q a random rotation
  coherent,   ///< A = diag(|t_2|) G, Student's t with 2 degrees of freedom: a few rows carry much of A^T A
  sparse,     ///< k entries N(0, 1/k) in each row of A, one in each of k equal groups of columns; else as practical
  misfit,     ///< A = G; b = softmax(A x_true + noise), or by Zipf's law, so that L has several minima; small w
};

std::string_view preset_name(Preset preset);   ///< "practical"
Preset preset_by_name(std::string_view name);  ///< Throws `InvalidArgument` (all ranks) that lists the names.
const std::vector<std::string_view>& preset_names();

struct ProblemOptions {
  Preset preset = Preset::practical;
  std::string loss =
      "softmax";             ///< b is what this loss compares with b, at x_true: softmax(A x_true), exp(A x_true), ...
  std::int64_t rows = 0;     ///< n, 1 to 2^40
  std::int64_t columns = 0;  ///< d, 1 to 1000000
  std::uint64_t seed = 20240607;
  double spread = 3;           ///< > 0; standard deviation of A x_true (not for coherent; easy has 1)
  double weight_scale = 1e-3;  ///< >= 0; w_i = weight_scale / sqrt(n) exp(0.25 N(0, 1)); not for easy and `zipf`
  double decay = 1e5;          ///< >= 1; illcond: sigma_max / sigma_min
  double neff = 200;           ///< >= 1; coherent: 1 / sum b^2. At most (n + 1) / 2 is used
  std::int64_t nonzeros_per_row = 10;  ///< 1 to d; sparse: k
  double logit_noise = 2;              ///< >= 0; misfit: standard deviation of the noise on A x_true
  bool zipf = false;                   ///< misfit: b_i ~ 1 / (i + 1) whatever A is, x_true = 0 and w_i = 0.1 / n
  double x_power = 0.5;             ///< 0 to 1; illcond: x_true along singular direction k scales as sigma_k^-x_power
  Storage type = Storage::float64;  ///< of A; the other files are float64
};

/// What was generated. Replicated; the same bits for any number of ranks.
struct ProblemFacts {
  double z_true_std = 0;  ///< standard deviation of z = A x_true
  double z_true_max = 0;
  double b_max = 0;
  double neff_b = 0;  ///< 1 / sum b^2
  double w_mean = 0;
  double loss_at_0 = 0;     ///< phi(0), 1/2 |1/n - b|^2 for softmax
  double reg_at_xtrue = 0;  ///< 1/2 |diag(w) z|^2
  // Coherent only.
  std::optional<double> row_norm2_max_over_mean;        ///< squared row norms
  std::optional<double> row_norm2_top_quarter_d_share;  ///< part of |A|_F^2 in the min(d, n) / 4 largest rows
};

/// Collective. Writes A.npy (n x d), b.npy (n), w.npy (n) and x_true.npy (d) into the existing `directory`, and returns
/// what a meta.json beside them should say besides preset, n, d and seed: writing that one is left to the caller.
/// Sparse has no A.npy but A.npz, as `scipy.sparse.save_npz` writes a CSR matrix without compression, and for other
/// programs its arrays once more: A_data.npy, A_indices.npy (int32) and A_indptr.npy (int64).
///
/// The files hold THE SAME BYTES for any number of ranks and threads (of CPUs of one kind): row i is a function of
/// (seed, i), rows are computed in fixed blocks, and all sums over rows are independent of their order. With equal seed
/// and d the rows of a smaller A begin those of a larger one (for illcond but for rounding in the last 1023). b belongs
/// to the rows as stored (after rounding to float32, if that is asked for): b = softmax(A x_true), but for the noise of
/// easy and misfit.
///
/// Coherent: x_true is orthogonal to the min(d, n) / 4 rows of largest norm, which keeps the logits moderate, and
/// scaled by bisection so that 1 / sum b^2 = neff. Easy: sigma_min^2 is the least eigenvalue of A^T A above d eps times
/// the largest, so n < d works.
///
/// Cost: n d normal numbers (sparse: n k), twice for coherent; n d^2 flops for easy and 2 n d^2 for illcond, over ranks
/// and threads; up to 4 d^3 flops on every rank, none for practical, sparse and misfit. Messages: easy sums 3 d^2
/// doubles once, coherent 6 doubles up to 125 times and the norms of its candidate rows, d / 4 from each rank. Memory:
/// up to 2048 x d doubles per thread, a few per local row, and, but for those three, some d x d matrices per rank
/// (easy: one per thread besides). Eigen's products run on one thread each meanwhile.
///
/// `options` and `directory` are replicated. Throws on all ranks: `InvalidArgument` for an option out of range, or for
/// logits whose exponentials overflow or sum to 0; `OutputError` if a file cannot be written; `OutOfMemory`.
ProblemFacts generate_problem(const Communicator& communicator, const ProblemOptions& options,
                              const std::string& directory);

}  // namespace attnreg
