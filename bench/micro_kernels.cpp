// Kernels on data that stay in the second-level cache, with Google Benchmark: what they cost when memory does not
// limit them. Each is checked once against a plain loop before it is timed.
#include <benchmark/benchmark.h>
#include <mpi.h>
#include <omp.h>

#include <Eigen/Core>
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <random>
#include <span>
#include <vector>

#include "attnreg/row_storage.hpp"
#include "kernels/gram_kernels.hpp"
#include "kernels/row_kernels.hpp"
#include "kernels/sketch_kernels.hpp"
#include "numbers/vector_math.hpp"

namespace attnreg::bench {
namespace {

using Eigen::Index;
using Eigen::VectorXd;

/// Rows of A that take about 128 KiB, in four pieces as a tile has.
template <class T>
struct Block {
  explicit Block(Index columns)
      : d(columns), rows(std::max<Index>(4, 131072 / static_cast<Index>(sizeof(T)) / d / 4 * 4)) {
    std::mt19937_64 generator(1);
    std::uniform_real_distribution<double> uniform(-1, 1);
    A.resize(rows, d);
    for (Index i = 0; i < A.size(); ++i) A.data()[i] = static_cast<T>(uniform(generator));
    x = VectorXd::NullaryExpr(d, [&](Index) { return uniform(generator); });
    u = VectorXd::NullaryExpr(rows, [&](Index) { return uniform(generator); });
  }
  kernels::DenseBlock block() const { return {A.data(), d, {0, rows / 4, 4, rows / 4}}; }
  Eigen::MatrixXd doubles() const { return A.template cast<double>(); }

  Index d, rows;
  Eigen::Matrix<T, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor> A;
  VectorXd x, u;
};

void require(const char* name, double found, double expected) {
  if (std::abs(found - expected) <= 1e-11 * std::max(1.0, std::abs(expected))) return;
  std::fprintf(stderr, "%s is wrong: %.17g, expected %.17g\n", name, found, expected);
  std::exit(1);
}

/// `items` entries of A and `bytes` bytes of it per run.
void count(benchmark::State& state, Index items, std::size_t bytes) {
  state.SetItemsProcessed(state.iterations() * items);
  state.SetBytesProcessed(state.iterations() * static_cast<std::int64_t>(bytes));
}

template <class T>
void multiply(benchmark::State& state) {
  const Block<T> a(state.range(0));
  VectorXd z(a.rows);
  kernels::multiply(a.block(), a.x.data(), z.data());
  require("multiply", (z - a.doubles() * a.x).norm(), 0);
  for (auto _ : state) {
    kernels::multiply(a.block(), a.x.data(), z.data());
    benchmark::ClobberMemory();
  }
  count(state, a.A.size(), static_cast<std::size_t>(a.A.size()) * sizeof(T));
}

template <class T>
void add_transpose_multiply(benchmark::State& state) {
  const Block<T> a(state.range(0));
  const Index k = state.range(1);
  const RowMajorMatrix U = a.u.replicate(1, k);
  Eigen::MatrixXd out = Eigen::MatrixXd::Zero(a.d, k);
  kernels::add_transpose_multiply(a.block(), U.data(), k, out.data());
  require("add_transpose_multiply", (out - a.doubles().transpose() * U).norm(), 0);
  for (auto _ : state) {
    kernels::add_transpose_multiply(a.block(), U.data(), k, out.data());
    benchmark::ClobberMemory();
  }
  count(state, a.A.size() * k, static_cast<std::size_t>(a.A.size()) * sizeof(T));
}

template <class T>
void add_normal_product(benchmark::State& state) {
  const Block<T> a(state.range(0));
  const VectorXd ridge = VectorXd::Constant(a.rows, 0.5);
  const RowCurvature weights{a.u.data(), ridge.data(), 0.25};
  VectorXd y(a.rows), out = VectorXd::Zero(a.d + 1);
  kernels::add_normal_product(a.block(), a.x.data(), weights, y.data(), out.data());
  const VectorXd z = a.doubles() * a.x, centred = a.u.array() * (z.array() - 0.25);
  require("add_normal_product", (out.head(a.d) - a.doubles().transpose() * (centred + 0.5 * z)).norm(), 0);
  require("add_normal_product, sum", out[a.d], centred.sum());
  for (auto _ : state) {
    kernels::add_normal_product(a.block(), a.x.data(), weights, y.data(), out.data());
    benchmark::ClobberMemory();
  }
  count(state, a.A.size(), static_cast<std::size_t>(a.A.size()) * sizeof(T));
}

template <void (*kFunction)(std::span<const double>, std::span<double>), double (*kPlain)(double)>
void elementary(benchmark::State& state) {
  std::vector<double> x(1024), y(1024);
  for (std::size_t i = 0; i < x.size(); ++i) x[i] = -20 + 0.03 * static_cast<double>(i);
  kFunction(x, y);
  for (std::size_t i = 0; i < x.size(); ++i) require("exp or expm1", y[i] / kPlain(x[i]), 1);
  for (auto _ : state) {
    kFunction(x, y);
    benchmark::ClobberMemory();
  }
  count(state, static_cast<Index>(x.size()), 2 * sizeof(double) * x.size());
}

void scatter_rows(benchmark::State& state) {
  constexpr Index kNonzeros = 4;
  const Block<double> a(state.range(0));
  const Index targets = 6 * a.d;
  std::mt19937_64 generator(2);
  std::vector<kernels::Scatter> entries;
  RowMajorMatrix S = RowMajorMatrix::Zero(targets, a.rows), out = RowMajorMatrix::Zero(targets, a.d);
  for (Index i = 0; i < a.rows * kNonzeros; ++i) {
    const auto target = static_cast<Index>(generator() % static_cast<std::uint64_t>(targets));
    entries.push_back({i / kNonzeros, target, 0.5});
    S(target, i / kNonzeros) += 0.5;
  }
  kernels::scatter_rows(a.A.data(), a.d, entries, out.data());
  require("scatter_rows", (out - S * a.A).norm(), 0);
  for (auto _ : state) {
    kernels::scatter_rows(a.A.data(), a.d, entries, out.data());
    benchmark::ClobberMemory();
  }
  count(state, a.A.size() * kNonzeros, static_cast<std::size_t>(a.A.size()) * sizeof(double));
}

void multiply_block(benchmark::State& state) {
  const Block<double> a(state.range(0));
  const RowMajorMatrix N = a.x.replicate(1, kernels::kBlockColumns);
  RowMajorMatrix Y(a.rows, kernels::kBlockColumns);
  kernels::multiply_block(a.A.data(), a.rows, a.d, N.data(), Y.data());
  require("multiply_block", (Y - a.A * N).norm(), 0);
  for (auto _ : state) {
    kernels::multiply_block(a.A.data(), a.rows, a.d, N.data(), Y.data());
    benchmark::ClobberMemory();
  }
  count(state, a.A.size() * kernels::kBlockColumns, static_cast<std::size_t>(a.A.size()) * sizeof(double));
}

// 256 rows, which the kernel packs once; items are the d (d + 1) / 2 products of a row.
void add_gram(benchmark::State& state) {
  const Index d = state.range(0), rows = 256;
  std::mt19937_64 generator(3);
  std::uniform_real_distribution<double> uniform(-1, 1);
  const RowMajorMatrix P = RowMajorMatrix::NullaryExpr(rows, d, [&] { return uniform(generator); });
  RowMajorMatrix C = RowMajorMatrix::Zero(d, d);
  kernels::add_gram(P.data(), rows, d, C.data());
  const RowMajorMatrix wrong = C - P.transpose() * P;
  require("add_gram", wrong.triangularView<Eigen::Lower>().toDenseMatrix().norm() / P.squaredNorm(), 0);
  for (auto _ : state) {
    kernels::add_gram(P.data(), rows, d, C.data());
    benchmark::ClobberMemory();
  }
  count(state, rows * d * (d + 1) / 2, static_cast<std::size_t>(P.size()) * sizeof(double));
}

double plain_exp(double x) { return std::exp(x); }
double plain_expm1(double x) { return std::expm1(x); }

void widths(benchmark::internal::Benchmark* benchmark) {
  for (const int d : {64, 100, 256, 1000}) benchmark->Arg(d);
}

BENCHMARK(multiply<double>)->Apply(widths);
BENCHMARK(multiply<float>)->Apply(widths);
BENCHMARK(add_transpose_multiply<double>)->ArgsProduct({{64, 100, 256, 1000}, {1, 2, 4, 8}});
BENCHMARK(add_normal_product<double>)->Apply(widths);
BENCHMARK(add_normal_product<float>)->Apply(widths);
BENCHMARK(elementary<kernels::exp, plain_exp>)->Name("exp");
BENCHMARK(elementary<kernels::expm1, plain_expm1>)->Name("expm1");
BENCHMARK(scatter_rows)->Apply(widths);
BENCHMARK(multiply_block)->Apply(widths);
BENCHMARK(add_gram)->Apply(widths);

}  // namespace
}  // namespace attnreg::bench

int main(int argc, char** argv) {
  MPI_Init(&argc, &argv);
  omp_set_num_threads(1);
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 2;
  benchmark::RunSpecifiedBenchmarks();
  benchmark::Shutdown();
  MPI_Finalize();
  return 0;
}
