#include <algorithm>
#include <bit>
#include <cmath>
#include <complex>
#include <string>
#include <unsupported/Eigen/FFT>
#include <vector>

#include "apply/attention_kernel.hpp"
#include "attnreg/apply_attention.hpp"
#include "errors/printable.hpp"
#include "errors/refuse.hpp"
#include "kernels/gram_kernels.hpp"
#include "numbers/random.hpp"
#include "ranks/activity.hpp"
#include "ranks/memory.hpp"
#include "ranks/span_of.hpp"
#include "ranks/stop.hpp"
#include "rows/dense_rows.hpp"
#include "rows/row_passes.hpp"

namespace attnreg {

namespace {

constexpr std::int64_t kMostSketchedDegree = 64, kFewestFeatures = 4;

/// Rows whose features are made at a time.
Index block_rows(Index features) { return std::clamp<Index>((Index{1} << 22) / features, 1, 256); }

/// TensorSketch of degree p (Pham, Pagh 2013): <t(x), t(y)> has the mean <x, y>^p. t(x) is the circular convolution of
/// p independent count sketches of x.
class TensorSketch {
 public:
  TensorSketch(Index columns, std::int64_t degree, Index size, std::uint64_t seed) : columns_(columns), size_(size) {
    const RandomStream random(seed, Purpose::tensor_sketch);
    for (std::int64_t factor = 0; factor < degree; ++factor)
      for (Index j = 0; j < columns; ++j) {
        const auto bits = random.bits(j, static_cast<std::uint32_t>(factor));
        const std::uint64_t place = ((std::uint64_t{bits[0]} << 32) | bits[1]) % static_cast<std::uint64_t>(size);
        entries_.push_back({static_cast<Index>(place), (bits[2] & 1) != 0 ? 1.0 : -1.0});
      }
  }

  /// Local, for one thread: what is needed besides. Its plans are those of one size.
  struct Workspace {
    Eigen::FFT<double> transform;
    std::vector<double> counts;
    std::vector<std::complex<double>> spectrum, product;
  };

  /// t(x) into `out`.
  template <class Row, class Out>
  void sketch(const Row& x, Workspace& work, Out&& out) const {
    const std::size_t factors = entries_.size() / static_cast<std::size_t>(columns_);
    work.transform.SetFlag(Eigen::FFT<double>::HalfSpectrum);
    for (std::size_t factor = 0; factor < factors; ++factor) {
      work.counts.assign(static_cast<std::size_t>(size_), 0);
      for (Index j = 0; j < columns_; ++j) {
        const Entry& entry = entries_[factor * static_cast<std::size_t>(columns_) + static_cast<std::size_t>(j)];
        work.counts[static_cast<std::size_t>(entry.place)] += entry.sign * x[j];
      }
      if (factors == 1) break;
      work.transform.fwd(work.spectrum, work.counts);
      if (factor == 0) work.product.assign(work.spectrum.size(), 1);
      for (std::size_t k = 0; k < work.spectrum.size(); ++k) work.product[k] *= work.spectrum[k];
    }
    if (factors > 1) work.transform.inv(work.counts, work.product, size_);
    for (Index k = 0; k < size_; ++k) out[k] = work.counts[static_cast<std::size_t>(k)];
  }

 private:
  struct Entry {
    Index place;
    double sign;
  };
  Index columns_, size_;
  std::vector<Entry> entries_;  ///< by factor
};

/// The largest r with r (r + 1) / 2 <= count: so many numbers have at most `count` products of two.
Index root_of(Index count) {
  auto r = static_cast<Index>(std::sqrt(2.0 * static_cast<double>(count)));
  while (r * (r + 1) / 2 > count) --r;
  return r;
}

/// The products of two numbers of t, <= one another by place, those of different ones times 2^{1/2}: <p(t), p(u)> =
/// <t, u>^2.
Eigen::RowVectorXd products_of(const Eigen::RowVectorXd& t) {
  Eigen::RowVectorXd products(t.size() * (t.size() + 1) / 2);
  Index place = 0;
  for (Index a = 0; a < t.size(); ++a) {
    const Index left = t.size() - a;
    products.segment(place, left) = std::sqrt(2.0) * t[a] * t.tail(left);
    products[place] = t[a] * t[a];
    place += left;
  }
  return products;
}

/// Features phi with <phi(q), phi(k)> about <q, k>^p: a TensorSketch of degree p, or the products of one of degree p /
/// 2, whose weights are squares (arXiv 2310.01655). Where the features suffice for all products of p = 2^s entries,
/// these.
class PolynomialFeatures {
 public:
  PolynomialFeatures(Index columns, const PolynomialSketch& options)
      : exact_(fits(columns, options.degree, static_cast<Index>(options.features))),
        squarings_(exact_                ? std::countr_zero(static_cast<std::uint64_t>(options.degree))
                   : is_squared(options) ? 1
                                         : 0),
        size_(exact_            ? columns
              : squarings_ == 1 ? smooth(root_of(static_cast<Index>(options.features)))
                                : smooth(static_cast<Index>(options.features))),
        count_(size_),
        sketch_(columns, options.degree >> squarings_, size_, options.seed) {
    for (int k = 0; k < squarings_; ++k) count_ = count_ * (count_ + 1) / 2;
  }

  Index count() const { return count_; }

  /// Local. Of rows x, each times its scale: rows x count.
  RowMajorMatrix of(const RowMajorMatrix& rows, Index first, Index number, const Eigen::VectorXd& scales,
                    TensorSketch::Workspace& work) const {
    RowMajorMatrix features(number, count());
    for (Index i = 0; i < number; ++i) {
      Eigen::RowVectorXd t = rows.row(first + i) * scales[first + i];
      if (!exact_) {
        const Eigen::RowVectorXd x = t;
        t.resize(size_);
        sketch_.sketch(x, work, t);
      }
      for (int k = 0; k < squarings_; ++k) t = products_of(t);
      features.row(i) = t;
    }
    return features;
  }

 private:
  static bool is_squared(const PolynomialSketch& options) {
    return options.degree % 2 == 0 && options.weights != PolynomialSketch::Weights::unbiased;
  }

  /// Whether all products of `degree` entries are at most so many, the degree a power of 2.
  static bool fits(Index columns, std::int64_t degree, Index features) {
    if (degree == 1) return columns <= features;
    return degree % 2 == 0 && fits(columns, degree / 2, root_of(features));
  }

  /// The largest product of 2, 3 and 5 up to `size`: other transforms are slow.
  static Index smooth(Index size) {
    for (;; --size) {
      Index rest = size;
      for (const Index prime : {2, 3, 5})
        while (rest % prime == 0) rest /= prime;
      if (rest == 1) return size;
    }
  }

  bool exact_;
  int squarings_;
  Index size_, count_;  ///< before and after they are multiplied
  TensorSketch sketch_;
};

void check(const PolynomialSketch& options) {
  if (options.degree < 1 || options.degree > kMostSketchedDegree)
    refuse("the degree of the polynomial is " + std::to_string(options.degree) + "; a sketch takes 1 to " +
           std::to_string(kMostSketchedDegree));
  if (options.features < kFewestFeatures)
    refuse("a sketch needs at least " + std::to_string(kFewestFeatures) + " features");
  if (options.weights == PolynomialSketch::Weights::squares && options.degree % 2 != 0)
    refuse("weights that are squares are for even degrees, and the degree is " + std::to_string(options.degree));
}

bool are_alike(const RowPartition& one, const RowPartition& other) {
  for (int rank = 0; rank < one.ranks(); ++rank)
    if (one.begin(rank) != other.begin(rank)) return false;
  return true;
}

/// Collective. The values of this rank's keys, and a column of ones.
RowMajorMatrix values_of_keys(const RowMatrix& keys, const RowMatrix& values) {
  RowMajorMatrix mine = RowMajorMatrix::Ones(keys.rows_local(), values.columns() + 1);
  if (are_alike(keys.partition(), values.partition())) {
    mine.leftCols(values.columns()) = dense_rows(values, 0, values.rows_local());
    return mine;
  }
  const std::int64_t begin = keys.first_row(), end = begin + keys.rows_local();
  for (std::int64_t first = 0; first < keys.rows_global(); first += kKeyBlockRows) {
    const auto count = static_cast<Index>(std::min<std::int64_t>(kKeyBlockRows, keys.rows_global() - first));
    const RowMajorMatrix block = shared_rows(values, first, count);
    const std::int64_t from = std::max(begin, first), to = std::min(end, first + count);
    if (from < to) mine.block(from - begin, 0, to - from, block.cols()) = block.middleRows(from - first, to - from);
  }
  return mine;
}

Eigen::VectorXd norms_of(const RowMajorMatrix& rows) {
  Eigen::VectorXd norms(rows.rows());
  for (Index i = 0; i < rows.rows(); ++i) norms[i] = rows.row(i).stableNorm();
  return norms;
}
double inverse(double norm) { return norm > 0 ? 1 / norm : 1; }

/// Calls `use(part, first, count)` for some rows at a time, so that their features take 32 MB at most, parts on
/// threads.
template <class Use>
void each_block_of_rows(Index rows, Index features, Use&& use) {
  const Index block = block_rows(features);
  RowPasses::share(rows, [&](int part, Index first, Index last) {
    for (Index begin = first; begin < last && !is_in_vain(); begin += block) {
      const Index count = std::min(block, last - begin);
      use(static_cast<std::size_t>(part), begin, count);
      InWork::add(count);
    }
  });
}

}  // namespace

SketchedAttention sketched_attention(const RowMatrix& queries, const RowMatrix& keys, const RowMatrix& values,
                                     const PolynomialSketch& options) {
  check(options);
  check_attention_shapes(queries, keys, &values);
  const Communicator& communicator = queries.communicator();
  const PolynomialFeatures features(keys.columns(), options);
  const auto parts = static_cast<std::size_t>(RowPasses::parts());
  const Index F = features.count(), columns = values.columns() + 1;
  require_memory(
      communicator,
      8.0 * (static_cast<double>(F) * static_cast<double>(parts) * static_cast<double>(columns + 3 * block_rows(F)) +
             static_cast<double>(queries.rows_local() + keys.rows_local()) *
                 static_cast<double>(keys.columns() + columns)),
      "polynomial attention with " + std::to_string(F) + " features");

  const RowMajorMatrix K = dense_rows(keys, 0, keys.rows_local()), V = values_of_keys(keys, values);
  const double longest = communicator.max(K.rows() > 0 ? norms_of(K).maxCoeff() : 0.0);
  const Eigen::VectorXd scales = Eigen::VectorXd::Constant(K.rows(), inverse(longest));  // one factor for all cancels
  std::vector<TensorSketch::Workspace> work(parts);
  std::vector<RowMajorMatrix> sums(parts, RowMajorMatrix::Zero(F, columns));
  communicator.agree([&] {
    const InWork sketching("sketch of the keys", "keys", static_cast<double>(K.rows()));
    each_block_of_rows(K.rows(), F, [&](std::size_t part, Index first, Index count) {
      const RowMajorMatrix phi = features.of(K, first, count, scales, work[part]).transpose();
      kernels::add_matrix_product(phi.data(), F, count, V.row(first).data(), columns, false, sums[part].data());
    });
    for (std::size_t part = 1; part < parts; ++part) sums[0] += sums[part];
  });
  communicator.sum(span_of(sums[0]));

  SketchedAttention result{RowMajorMatrix(queries.rows_local(), values.columns()), F};
  const RowMajorMatrix Q = dense_rows(queries, 0, queries.rows_local());
  const Eigen::VectorXd query_scales =
      norms_of(Q).unaryExpr([](double norm) { return inverse(norm); });  // these cancel, too
  RowMajorMatrix totals = RowMajorMatrix::Zero(Q.rows(), columns);
  communicator.agree([&] {
    const InWork sketching("sketch of the queries", "queries", static_cast<double>(Q.rows()));
    each_block_of_rows(Q.rows(), F, [&](std::size_t part, Index first, Index count) {
      const RowMajorMatrix phi = features.of(Q, first, count, query_scales, work[part]);
      kernels::add_matrix_product(phi.data(), count, F, sums[0].data(), columns, false, totals.row(first).data());
    });
    throw_if_stopped();
    for (Index i = 0; i < Q.rows(); ++i) {
      const double normaliser = totals(i, columns - 1);
      if (Q.row(i).isZero(0) || longest == 0)
        throw InvalidArgument("query " + std::to_string(queries.first_row() + i) +
                              " (counted from 0): all its logits are 0, so that z^" + std::to_string(options.degree) +
                              " cannot be normalised");
      if (!(normaliser > 0))
        throw InvalidArgument("query " + std::to_string(queries.first_row() + i) +
                              " (counted from 0): the sketch makes the sum of its weights " + text_of(normaliser) +
                              ", not above 0; take more features, or no sketch");
      result.output.row(i) = totals.row(i).head(columns - 1) / normaliser;
    }
    require_finite_output(queries.first_row(), result.output);
  });
  return result;
}

}  // namespace attnreg
