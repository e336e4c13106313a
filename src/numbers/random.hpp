#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

namespace attnreg {

/// Local. Philox4x32-10: a bijection of the counters for every key. Salmon, Moraes, Dror, Shaw, "Parallel random
/// numbers: as easy as 1, 2, 3", SC 2011.
std::array<std::uint32_t, 4> philox4x32_10(const std::array<std::uint32_t, 4>& counter,
                                           const std::array<std::uint32_t, 2>& key);

/// What random numbers are for. Two purposes never share a number, whatever the seed.
enum class Purpose : std::uint32_t {
  problem_rows = 1,
  problem_solution = 2,
  problem_noise = 3,
  problem_weights = 4,
  problem_rotation = 5,
  problem_row_scale = 6,
  sketch_sparse_sign = 7,
  sketch_gaussian = 8,
  jl_columns = 10,
  sample_poisson = 11,
  sample_with_replacement = 12,
  spectral_probes = 13,
  random_starts = 14,
  problem_columns = 15,
  eigenvalue_start = 16,
  grover_search = 24,
  private_samples = 25,
  experiment_data = 26,
  experiment_start = 27,
  experiment_signs = 28,
  tensor_sketch = 29,
  subspace_start = 30,
  head_start = 31,
  layer_start = 32,
  audit = 40,
};

/// Random numbers as a function: (seed, purpose, iteration, global index, draw) -> number. No state, so that the same
/// rows, signs and samples come out on any number of ranks and threads, in any order.
///
/// Philox4x32-10 (Salmon et al. 2011, Random123); the key is a hash of seed and purpose, the counter holds the rest.
class RandomStream {
 public:
  RandomStream(std::uint64_t seed, Purpose purpose, std::uint32_t iteration = 0);

  /// Local. 128 random bits.
  std::array<std::uint32_t, 4> bits(std::int64_t index, std::uint32_t draw = 0) const;

  /// Local. Uniform on the open interval (0, 1), 53 bits.
  double uniform(std::int64_t index, std::uint32_t draw = 0) const;

  /// Local. uniform(first), uniform(first + 1), ...: many at once take a quarter of the time.
  void uniforms(std::int64_t first, std::span<double> values) const;

  /// Local. Independent N(0, 1) numbers (Box-Muller); value k depends on (index, k) only, not on the span's length.
  void normals(std::int64_t index, std::span<double> values) const;

  /// Local. The same for each row of a row-major matrix; that of the first row has index `first`.
  template <class Matrix>
  void normal_rows(std::int64_t first, Matrix& rows) const {
    for (std::ptrdiff_t i = 0; i < rows.rows(); ++i)
      normals(first + i, {rows.row(i).data(), static_cast<std::size_t>(rows.cols())});
  }

 private:
  std::array<std::uint32_t, 2> key_;
  std::uint32_t iteration_;
};

}  // namespace attnreg
