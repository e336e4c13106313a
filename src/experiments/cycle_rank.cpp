#include <chrono>
#include <cmath>
#include <optional>
#include <string>
#include <utility>

#include "algebra/blas_products.hpp"
#include "errors/printable.hpp"
#include "errors/refuse.hpp"
#include "experiments/tensor_ring.hpp"
#include "numbers/random.hpp"
#include "ranks/activity.hpp"
#include "ranks/alone.hpp"
#include "ranks/memory.hpp"
#include "ranks/span_of.hpp"

namespace attnreg::experiments {

namespace {

/// What came of a start.
struct End {
  int start = -1;
  double sweeps = 0, residual = 0, seconds = 0;
};

constexpr double kSecondsAlone = 0.2;  // between two messages, by which ranks with starts of their own hear of a stop

/// Ten sweeps lowered the residual by less than this share.
bool stalls(const std::vector<double>& residuals, double tolerance) {
  constexpr std::ptrdiff_t kWindow = 10;
  if (std::ssize(residuals) < 2 * kWindow) return false;
  double before = 0, now = 0;
  for (auto last = residuals.end(), k = last - 2 * kWindow; k != last; ++k) (last - k > kWindow ? before : now) += *k;
  return !(now < (1 - tolerance) * before);
}

/// One start after another, of those that a rank has, or that all ranks have together; sweep by sweep.
class Starts {
 public:
  Starts(const Communicator& communicator, const TensorSlices& slices, const CycleRank& options, int first, int step)
      : communicator_(communicator), slices_(slices), options_(options), start_(first), step_(step) {}

  bool are_over() const { return start_ >= options_.starts; }
  const std::vector<End>& ends() const { return ends_; }
  const std::array<MatrixXd, 3>& best() const { return best_; }  ///< factors

  /// Local, where the communicator is this rank's alone: sweeps for about so long.
  void sweep_for(double seconds) {
    const auto end = std::chrono::steady_clock::now() + std::chrono::duration<double>(seconds);
    while (!are_over()) {
      sweep();
      if (std::chrono::steady_clock::now() >= end) return;
    }
  }

  void sweep() {
    if (are_over()) return;
    if (!ring_) {
      begin_ = std::chrono::steady_clock::now();
      residuals_.clear();
      ring_.emplace(communicator_, slices_, options_, start_);
    }
    residuals_.push_back(ring_->sweep());
    InWork::add(1);
    const double last = residuals_.back();
    if (std::ssize(residuals_) < options_.sweeps && std::isfinite(last) && last > options_.residual &&
        !stalls(residuals_, options_.tolerance))
      return;
    const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin_).count();
    const End end{start_, static_cast<double>(residuals_.size()), ring_->residual(), seconds};
    if (best_[0].size() == 0 || end.residual < least_ || !std::isfinite(least_)) {
      best_ = ring_->factors();
      least_ = end.residual;
    }
    ends_.push_back(end);
    ring_.reset();
    start_ += step_;
  }

 private:
  Communicator communicator_;
  TensorSlices slices_;
  CycleRank options_;
  int start_, step_;
  std::optional<TensorRing> ring_;
  std::vector<double> residuals_;
  std::chrono::steady_clock::time_point begin_;
  std::vector<End> ends_;
  std::array<MatrixXd, 3> best_;
  double least_ = 0;
};

void check_cycle_rank(const CycleRank& options, const std::array<std::int64_t, 3>& sides) {
  const bool in_range = options.rank >= 1 && options.rank <= 64 && options.sampled_rows >= 0 &&
                        options.sampled_rows <= (1 << 30) && options.starts >= 1 && options.sweeps >= 1 &&
                        options.tolerance > 0 && options.tolerance < 1 && options.residual >= 0;
  require(in_range,
          "cycle rank needs 1 <= k <= 64, starts and sweeps >= 1, 0 < tolerance < 1, residual >= 0, and at "
          "most 2^30 sampled rows");
  const std::int64_t unknowns = options.rank * options.rank;
  for (std::size_t mode = 0; mode < 3; ++mode)
    if (sides[(mode + 1) % 3] * sides[(mode + 2) % 3] < unknowns)
      refuse("a tensor of shape (" + std::to_string(sides[0]) + ", " + std::to_string(sides[1]) + ", " +
             std::to_string(sides[2]) + ") has " + std::to_string(sides[(mode + 1) % 3] * sides[(mode + 2) % 3]) +
             " equations for the " + std::to_string(unknowns) + " unknowns of each place along axis " +
             std::to_string(mode) + "; rank " + std::to_string(options.rank) + " is too large for it");
}

/// Collective. Divides the tensor by its norm; the cube root of that.
double normalise_tensor(const Communicator& communicator, RowMajorMatrix& entries) {
  const double largest = communicator.max(entries.size() > 0 ? entries.cwiseAbs().maxCoeff() : 0.0);
  require(largest > 0, "all entries of the tensor are 0, so that there is nothing to fit");
  entries /= largest;
  const double norm = std::sqrt(communicator.sum(entries.squaredNorm()));
  entries /= norm;
  return std::cbrt(largest) * std::cbrt(norm);
}

/// Collective.
bool shares_starts(const Communicator& communicator, const SlicedTensor& tensor, const CycleRank& options) {
  if (options.spread != CycleRank::Spread::by_memory) return options.spread == CycleRank::Spread::starts;
  if (communicator.size() == 1) return false;
  double bytes = 2 * 8.0 * communicator.ranks_on_node();
  for (const std::int64_t side : tensor.sides) bytes *= static_cast<double>(side);
  const bool fits = options.starts >= communicator.size() && bytes <= 0.5 * available_node_memory();
  return communicator.min(std::int64_t{fits}) != 0;
}

std::string equations_text(const CycleRank& options, const std::array<std::int64_t, 3>& sides) {
  if (options.sampled_rows > 0) return std::to_string(options.sampled_rows) + " drawn equations a step";
  std::string text = "all ";
  for (std::size_t mode = 0; mode < 3; ++mode)
    text += (mode == 0   ? ""
             : mode == 1 ? ", "
                         : " and ") +
            std::to_string(sides[(mode + 1) % 3] * sides[(mode + 2) % 3]);
  return text + " equations";
}

}  // namespace

SlicedTensor made_tensor(const Communicator& communicator, const MadeTensor& options) {
  require(options.size >= 1 && options.size <= 4096 && options.rank >= 1 && options.rank <= 64 && options.noise >= 0 &&
              std::isfinite(options.noise),
          "a tensor is made of a size from 1 to 4096, a rank from 1 to 64 and noise >= 0");
  const std::int64_t n = options.size;
  const auto k = static_cast<Index>(options.rank);
  SlicedTensor tensor{{n, n, n}, RowPartition::in_blocks(n, 1, communicator.size()), RowMajorMatrix()};
  const std::int64_t first = tensor.slices.begin(communicator.rank());
  const Index count = tensor.slices.rows_local(communicator.rank());
  const double bytes = 8.0 * static_cast<double>(count) * static_cast<double>(n) * static_cast<double>(n);
  attnreg::require_memory(communicator, 2 * bytes, "the tensor and its noise");
  communicator.agree([&] { tensor.entries.resize(count, n * n); });
  const RandomStream random(options.seed, Purpose::experiment_data);
  std::array<MatrixXd, 3> factors;
  for (int mode = 0; mode < 3; ++mode) {
    MatrixXd& factor = factors[static_cast<std::size_t>(mode)];
    factor.resize(k * k, n);
    random.normals(mode, span_of(factor));
  }
  const MatrixXd own = factors[0].middleCols(first, count);
  for (Index b = 0; b < n; ++b) {
    MatrixXd M = MatrixXd::Zero(k * k, n);
    for (Index c = 0; c < n; ++c)
      add_ring_product(k, factors[1].col(b).data(), factors[2].col(c).data(), 1, M.col(c).data());
    tensor.entries.middleCols(b * n, n) = transposed_times(own, M);
  }
  if (options.noise == 0) return tensor;
  RowMajorMatrix noise;
  communicator.agree([&] { noise.resize(count, n * n); });
  RandomStream(options.seed, Purpose::experiment_data, 1).normal_rows(first, noise);
  const double size = std::sqrt(communicator.sum(tensor.entries.squaredNorm()));
  tensor.entries += options.noise * size / std::sqrt(communicator.sum(noise.squaredNorm())) * noise;
  return tensor;
}

CycleRankFit cycle_rank(const Communicator& communicator, SlicedTensor tensor, const CycleRank& options) {
  check_cycle_rank(options, tensor.sides);
  const double scale = normalise_tensor(communicator, tensor.entries);
  const bool shares = shares_starts(communicator, tensor, options);
  const int ranks = communicator.size(), rank = communicator.rank();
  TensorSlices slices;
  for (std::size_t mode = 0; mode < 3; ++mode) slices.sides[mode] = static_cast<Index>(tensor.sides[mode]);
  std::vector<double> whole;
  if (shares) {
    whole = communicator.all_gather(span_of(std::as_const(tensor.entries)));
    tensor.entries.resize(0, 0);
    slices.count = slices.sides[0];
    slices.entries = whole.data();
  } else {
    slices.first = static_cast<Index>(tensor.slices.begin(rank));
    slices.count = tensor.slices.rows_local(rank);
    slices.entries = tensor.entries.data();
  }

  Starts starts(shares ? alone(communicator) : communicator, slices, options, shares ? rank : 0, shares ? ranks : 1);
  const int own = shares ? (options.starts - rank + ranks - 1) / ranks : options.starts;
  const InWork fitting("alternating least squares", "sweeps", static_cast<double>(own) * options.sweeps);
  for (bool goes_on = true; goes_on;) {
    if (shares) {
      communicator.agree([&] { starts.sweep_for(kSecondsAlone); });
      goes_on = communicator.max(std::int64_t{!starts.are_over()}) != 0;
    } else {
      starts.sweep();
      goes_on = !starts.are_over();
    }
  }

  MatrixXd ends = MatrixXd::Zero(3, options.starts);
  for (const End& end : starts.ends())
    if (shares || communicator.is_root()) ends.col(end.start) << end.sweeps, end.residual, end.seconds;
  communicator.sum(span_of(ends));
  int best = 0;
  for (int start = 1; start < options.starts; ++start)
    if (ends(1, start) < ends(1, best) || !std::isfinite(ends(1, best))) best = start;
  if (!std::isfinite(ends(1, best)))
    throw NotFinite("no start of the tensor ring has a fit that is finite", Error::Scope::all_ranks);

  CycleRankFit fit{{"cycle-rank",
                    "Cycle rank " + std::to_string(options.rank) + " of " + std::to_string(tensor.sides[0]) + " x " +
                        std::to_string(tensor.sides[1]) + " x " + std::to_string(tensor.sides[2]) + ", " +
                        equations_text(options, tensor.sides),
                    {"start", "sweeps", "residual", "seconds"},
                    {},
                    {"residual: |A - fit| / |A| of all entries; starts far above the least ended in another local "
                     "minimum"}},
                   {}};
  if (ranks > 1)
    fit.table.reading.push_back(shares ? "each rank had all of A and starts of its own"
                                       : "the ranks had slices of A and shared each start");
  for (int start = 0; start < options.starts; ++start)
    fit.table.rows.push_back({static_cast<double>(start), ends(0, start), ends(1, start), ends(2, start)});
  for (std::size_t mode = 0; mode < 3; ++mode) {
    MatrixXd& factor = fit.factors[mode];
    factor.resize(options.rank * options.rank, slices.sides[mode]);
    if (const int owner = shares ? best % ranks : 0; rank == owner) factor = scale * starts.best()[mode];
    communicator.broadcast(span_of(factor), shares ? best % ranks : 0);
  }
  return fit;
}

}  // namespace attnreg::experiments
