#include "problems/problem_generator.hpp"

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <cstddef>
#include <deque>
#include <limits>
#include <mutex>
#include <utility>

#include "algebra/dense_factors.hpp"
#include "attnreg/files.hpp"
#include "errors/refuse.hpp"
#include "files/byte_order.hpp"
#include "files/npz_writer.hpp"
#include "losses/losses.hpp"
#include "numbers/exact_sum.hpp"
#include "numbers/random.hpp"
#include "problems/problem_work.hpp"
#include "ranks/span_of.hpp"

namespace attnreg {

namespace {

constexpr double kZipfWeight = 0.1;  // w n: far below it b is fitted by few rows, far above nothing is

/// Eigen's products round differently on different numbers of threads; here they run on one.
class OneThreadProducts {
 public:
  OneThreadProducts() : before_(Eigen::nbThreads()) { Eigen::setNbThreads(1); }
  ~OneThreadProducts() { Eigen::setNbThreads(before_); }
  OneThreadProducts(const OneThreadProducts&) = delete;
  OneThreadProducts& operator=(const OneThreadProducts&) = delete;

 private:
  int before_;
};

[[noreturn]] void refuse_option(const char* option, double found, const char* expected) {
  std::array<char, 32> text;
  const auto end = std::to_chars(text.data(), text.data() + text.size(), found).ptr;
  refuse("artificial problem: " + std::string(option) + " is " + std::string(text.data(), end) + ", expected " +
         expected);
}

void check(const ProblemOptions& options) {
  const auto finite = [](double value) { return std::isfinite(value); };
  const auto count = [](std::int64_t value) { return static_cast<double>(value); };
  if (options.rows < 1 || options.rows > std::int64_t{1} << 40) refuse_option("rows", count(options.rows), "1 to 2^40");
  if (options.columns < 1 || options.columns > 1'000'000)
    refuse_option("columns", count(options.columns), "1 to 1000000");
  if (!finite(options.spread) || options.spread <= 0) refuse_option("spread", options.spread, "a number above 0");
  if (!finite(options.weight_scale) || options.weight_scale < 0)
    refuse_option("weight_scale", options.weight_scale, "a number of at least 0");
  if (!finite(options.decay) || options.decay < 1) refuse_option("decay", options.decay, "a number of at least 1");
  if (!finite(options.neff) || options.neff < 1) refuse_option("neff", options.neff, "a number of at least 1");
  if (options.preset == Preset::sparse && (options.nonzeros_per_row < 1 || options.nonzeros_per_row > options.columns))
    refuse_option("nonzeros_per_row", count(options.nonzeros_per_row), "1 to the number of columns");
  if (!finite(options.logit_noise) || options.logit_noise < 0)
    refuse_option("logit_noise", options.logit_noise, "a number of at least 0");
  if (options.zipf && options.preset != Preset::misfit)
    refuse("artificial problem: b by Zipf's law is for misfit, not for " + std::string(preset_name(options.preset)));
  if (!(options.x_power >= 0 && options.x_power <= 1)) refuse_option("x_power", options.x_power, "0 to 1");
}

/// Collective. Writes A; returns this rank's part of z = A x. With `gram` also adds A^T A's lower triangle to it.
VectorXd write_matrix(const ProblemWork& work, const VectorXd& x, ExactSum* gram) {
  NpyWriter writer(work.communicator(), work.path("A.npy"), work.options().type,
                   {work.rows_global(), work.options().columns});
  VectorXd z(work.rows_local());
  std::mutex one_at_a_time;
  work.for_each_block([&](Index first_local, const RowMajorMatrix& rows) {
    z.segment(first_local, rows.rows()) = rows * x;
    MatrixXd block_gram;
    if (gram) {
      block_gram = MatrixXd::Zero(work.columns(), work.columns());
      block_gram.selfadjointView<Eigen::Lower>().rankUpdate(rows.transpose());
    }
    const std::lock_guard lock(one_at_a_time);
    writer.write_rows(work.first_row() + first_local, span_of(rows));
    if (gram) gram->add(span_of(block_gram));
  });
  writer.commit();
  return z;
}

std::string value_bytes(std::vector<double> values, Storage type) {
  if (type == Storage::float64) return little_endian(std::move(values));
  return little_endian(std::vector<float>(values.begin(), values.end()));
}

/// Collective. Writes A of the sparse preset, A.npz and its three arrays; returns this rank's part of z = A x.
VectorXd write_sparse_matrix(const ProblemWork& work, const VectorXd& x) {
  const ProblemOptions& options = work.options();
  const std::int64_t k = options.nonzeros_per_row, n = options.rows;
  const std::vector<ArrayFormat> arrays = sparse_arrays(n, n * k, options.type);
  NpzWriter archive(work.communicator(), work.path("A.npz"), arrays);
  std::deque<SharedArray> files;  // indices, indptr and data once more, each by itself
  for (const SparseArray array : {indices_array, indptr_array, data_array})
    files.emplace_back(work.communicator(), work.path("A_" + arrays[array].name + ".npy"), arrays[array]);
  const auto write = [&](SparseArray array, std::int64_t first, const std::string& bytes) {
    const std::int64_t offset = first * arrays[array].item_bytes;
    archive.write(array, offset, bytes);
    files[array].write(offset, bytes);
  };

  VectorXd z(work.rows_local());
  std::mutex one_at_a_time;
  work.for_each_range([&](Index first_local, Index rows) {
    const std::int64_t first = work.first_row() + first_local;
    std::vector<std::int32_t> columns(static_cast<std::size_t>(rows * k));
    std::vector<double> values(columns.size());
    std::vector<std::int64_t> positions;
    for (Index i = 0; i < rows; ++i) {
      const auto begin = static_cast<std::size_t>(i * k), count = static_cast<std::size_t>(k);
      work.source().fill_sparse(first + i, std::span(columns).subspan(begin, count),
                                std::span(values).subspan(begin, count));
      double sum = 0;
      for (std::size_t e = begin; e < begin + count; ++e) sum += values[e] * x[columns[e]];
      z[first_local + i] = sum;
      positions.push_back((first + i) * k);
    }
    if (first + rows == n) positions.push_back(n * k);
    const std::string index_text = little_endian(columns), data_text = value_bytes(values, options.type);
    const std::string position_text = little_endian(positions);
    const std::lock_guard lock(one_at_a_time);
    write(indices_array, first * k, index_text);
    write(indptr_array, first, position_text);
    write(data_array, first * k, data_text);
  });
  commit_sparse(archive, work.communicator(), "csr", n, options.columns);
  for (SharedArray& file : files) file.commit();
  return z;
}

/// Collective. Writes one value per row.
void write_vector(const ProblemWork& work, const char* name, const VectorXd& values) {
  write_npy(work.communicator(), work.path(name), {work.rows_global()}, work.first_row(), span_of(values));
}

/// Collective. The sum of A^T A, ready for the terms of `write_matrix`. |A_ij| <= largest_normal / sqrt(d), and each
/// block is one term.
ExactSum empty_gram(const ProblemWork& work) {
  const std::int64_t blocks = (work.rows_global() + ProblemRows::block_rows - 1) / ProblemRows::block_rows;
  const double largest =
      ProblemRows::largest_normal * ProblemRows::largest_normal / static_cast<double>(work.columns());
  std::optional<ExactSum> gram;
  work.communicator().agree([&] {
    gram.emplace(work.columns() * work.columns(), static_cast<double>(work.rows_global()) * largest, blocks);
  });
  return std::move(*gram);
}

/// Collective. w^2 = 100 + 1 / sigma_min(A)^2, from the least eigenvalue of A^T A that is not rounding.
double theorem_weight(const ProblemWork& work, ExactSum& gram) {
  gram.reduce(work.communicator());
  std::array<double, 1> smallest{1};
  work.communicator().agree_on_root([&] {
    const Index d = work.columns();
    const VectorXd entries = gram.values();
    const VectorXd values = symmetric_eigen(Eigen::Map<const MatrixXd>(entries.data(), d, d), false).values;
    const double rounding = static_cast<double>(d) * std::numeric_limits<double>::epsilon() * values[d - 1];
    const auto least = std::find_if(values.begin(), values.end(), [&](double value) { return value > rounding; });
    if (least != values.end()) smallest[0] = *least;
  });
  work.communicator().broadcast(smallest);
  return std::sqrt(100 + 1 / smallest[0]);
}

/// How the losses make b from z: u(z), or its parts of their sum.
struct TargetForm {
  double (*u)(double);
  bool parts_of_sum;
};

TargetForm target_form(const std::string& loss) {
  const auto exp = +[](double z) { return std::exp(z); };
  const auto cosh = +[](double z) { return std::cosh(z); };
  const auto sinh = +[](double z) { return std::sinh(z); };
  const bool rescaled = loss.starts_with("rescaled-");
  if (loss.ends_with("cosh")) return {cosh, rescaled};
  if (loss.ends_with("sinh")) return {sinh, rescaled};
  return {exp, loss != "exp"};
}

/// Local. One normal number for each row.
VectorXd row_noise(const ProblemWork& work) {
  const RandomStream stream(work.options().seed, Purpose::problem_noise);
  VectorXd noise(work.rows_local());
  for (Index i = 0; i < work.rows_local(); ++i) stream.normals(work.first_row() + i, {&noise[i], 1});
  return noise;
}

/// Collective. Zipf's law. The rows of A are random, so that their order says nothing of them.
VectorXd zipf_targets(const ProblemWork& work) {
  VectorXd b(work.rows_local());
  for (Index i = 0; i < work.rows_local(); ++i) b[i] = 1 / static_cast<double>(work.first_row() + i + 1);
  return b / work.sum(b);
}

/// Collective. b of the loss at z, with 5 % noise for easy.
VectorXd targets(const ProblemWork& work, const VectorXd& z) {
  const TargetForm form = target_form(work.options().loss);
  const bool shift_invariant =
      make_loss(work.options().loss)->is_shift_invariant() || work.options().loss == "rescaled-exp";
  const double shift = shift_invariant ? work.max(z) : 0;
  const auto over_sum = [&](VectorXd values) {
    const double sum = work.sum(values);
    if (sum == 0) refuse_option("the sum of the target", sum, "another number: choose another seed");
    return VectorXd(values / sum);
  };
  VectorXd b(work.rows_local());
  for (Index i = 0; i < work.rows_local(); ++i) b[i] = form.u(z[i] - shift);
  if (!(work.max(b.cwiseAbs()) <= 1e150))
    refuse_option("the largest target", work.max(b.cwiseAbs()), "at most 1e150: lower spread");
  if (form.parts_of_sum) b = over_sum(std::move(b));
  if (work.options().preset != Preset::easy) return b;
  const VectorXd noise = row_noise(work);
  for (Index i = 0; i < work.rows_local(); ++i) b[i] = std::copysign(b[i] * (1 + 0.05 * noise[i]), b[i]);
  return form.parts_of_sum ? over_sum(std::move(b)) : b;
}

/// Local. Log-normal weights, not for easy; equal ones with Zipf's law.
VectorXd small_weights(const ProblemWork& work) {
  if (work.options().zipf)
    return VectorXd::Constant(work.rows_local(), kZipfWeight / static_cast<double>(work.rows_global()));
  const RandomStream stream(work.options().seed, Purpose::problem_weights);
  const double scale = work.options().weight_scale / std::sqrt(static_cast<double>(work.rows_global()));
  VectorXd w(work.rows_local());
  for (Index i = 0; i < work.rows_local(); ++i) {
    double normal;
    stream.normals(work.first_row() + i, {&normal, 1});
    w[i] = scale * std::exp(0.25 * normal);
  }
  return w;
}

/// Collective.
void add_facts(const ProblemWork& work, const VectorXd& z, const VectorXd& b, const VectorXd& w, ProblemFacts& facts) {
  const double n = static_cast<double>(work.rows_global()), z_mean = work.sum(z) / n;
  facts.z_true_std = std::sqrt(work.sum((z.array() - z_mean).square()) / n);
  facts.z_true_max = work.max(z);
  facts.b_max = work.max(b);
  facts.neff_b = 1 / work.sum(b.array().square());
  facts.w_mean = work.sum(w) / n;
  const TargetForm form = target_form(work.options().loss);
  const double u0 = form.u(0);
  if (form.parts_of_sum && !make_loss(work.options().loss)->is_shift_invariant())
    facts.loss_at_0 = 0.5 * work.sum((u0 - n * u0 * b.array()).square());
  else
    facts.loss_at_0 = 0.5 * work.sum((b.array() - (form.parts_of_sum ? 1 / n : u0)).square());
  facts.reg_at_xtrue = 0.5 * work.sum((w.array() * z.array()).square());
}

}  // namespace

const std::vector<std::string_view>& preset_names() {
  static const std::vector<std::string_view> names{"easy", "practical", "illcond", "coherent", "sparse", "misfit"};
  return names;
}

std::string_view preset_name(Preset preset) { return preset_names()[static_cast<std::size_t>(preset)]; }

Preset preset_by_name(std::string_view name) {
  const auto& names = preset_names();
  const auto found = std::ranges::find(names, name);
  if (found != names.end()) return static_cast<Preset>(found - names.begin());
  std::string message = "unknown preset \"" + std::string(name) + "\", expected one of";
  for (const auto known : names) message += " " + std::string(known);
  refuse(message);
}

ProblemFacts generate_problem(const Communicator& communicator, const ProblemOptions& options,
                              const std::string& directory) {
  check(options);
  make_loss(options.loss);  // refuses an unknown one
  const OneThreadProducts one_thread;
  const ProblemWork work(communicator, options, directory);
  const bool is_coherent = options.preset == Preset::coherent;

  ProblemFacts facts;
  VectorXd x = is_coherent ? orthogonal_solution(work, facts) : work.source().solution();
  if (options.zipf) x.setZero();
  std::optional<ExactSum> gram;
  if (options.preset == Preset::easy) gram = empty_gram(work);
  VectorXd z =
      options.preset == Preset::sparse ? write_sparse_matrix(work, x) : write_matrix(work, x, gram ? &*gram : nullptr);
  if (is_coherent) {
    const double scale = scale_for_effective_rows(work, z);
    x *= scale;
    z *= scale;
  }
  const bool is_noisy = options.preset == Preset::misfit;
  const VectorXd b = options.zipf ? zipf_targets(work)
                     : is_noisy   ? targets(work, z + options.logit_noise * row_noise(work))
                                  : targets(work, z);
  const VectorXd w =
      gram ? VectorXd(VectorXd::Constant(work.rows_local(), theorem_weight(work, *gram))) : small_weights(work);
  write_vector(work, "b.npy", b);
  write_vector(work, "w.npy", w);
  communicator.agree_on_root([&] { write_npy(work.path("x_true.npy"), span_of(x), {options.columns}); });
  add_facts(work, z, b, w, facts);
  return facts;
}

}  // namespace attnreg
