// Times the kernels of attnreg in R, the time of one read of A: see bench/README.md.
#include <mpi.h>
#include <omp.h>

#include <algorithm>
#include <boost/program_options.hpp>
#include <cstdio>
#include <iostream>
#include <map>
#include <sstream>

#include "kernels.hpp"
#include "solve.hpp"

// Weak: another BLAS may be linked in place of OpenBLAS.
extern "C" __attribute__((weak)) void openblas_set_num_threads(int threads);

namespace attnreg::bench {
namespace {

namespace po = boost::program_options;

struct Arguments {
  std::string type, kernels, csv;
  std::int64_t rows;
  Index columns, nonzeros;
  int repeat, threads;
  SolvePlan solve;
};

std::optional<Arguments> parse(int argc, char** argv, bool is_root) {
  Arguments a;
  po::options_description options("attnreg_bench: kernels in R, the time of one read of A (bench/README.md)");
  options.add_options()("help,h", "this text")("rows,n", po::value(&a.rows)->default_value(500000),
                                               "rows of A, all ranks")(
      "columns,d", po::value(&a.columns)->default_value(100), "columns of A")(
      "type", po::value(&a.type)->default_value("f64"), "f64, f32, f16, bf16 or csr")(
      "nonzeros", po::value(&a.nonzeros)->default_value(10), "entries of a row of csr")(
      "kernels", po::value(&a.kernels)->default_value("all"), "names, separated by commas, and all, -name; or list")(
      "repeat", po::value(&a.repeat)->default_value(7),
      "sums and runs of a kernel, at least 7 for a figure to be quoted")(
      "threads", po::value(&a.threads)->default_value(1), "OpenMP threads of each rank")(
      "csv", po::value(&a.csv), "append one line per measurement to this file")(
      "solve", po::value(&a.solve.preset),
      "time a whole solve instead: easy, practical, illcond, coherent, sparse, misfit")(
      "problem", po::value(&a.solve.problem), "the same with A.npy or A.npz, b.npy and w.npy of this directory")(
      "start", po::value(&a.solve.start)->default_value("automatic"), "of the solve: automatic, zero, cross-entropy")(
      "time-limit", po::value(&a.solve.time_limit_seconds)->default_value(60), "seconds, of the solve")(
      "scratch", po::value(&a.solve.scratch)->default_value("/tmp"), "directory for the files of a solve's problem");
  po::variables_map map;
  po::store(po::parse_command_line(argc, argv, options), map);
  po::notify(map);
  if (map.count("help") != 0) {
    if (is_root) std::cout << options;
    return std::nullopt;
  }
  if (a.repeat < 1 || a.threads < 1)
    throw InvalidArgument("--repeat, --threads: give at least 1", Error::Scope::all_ranks);
  if (a.solve.preset == "sparse") a.type = "csr";
  a.solve.rows = a.rows, a.solve.columns = a.columns, a.solve.nonzeros = a.nonzeros;
  a.solve.type = type_by_name(a.type);
  if (!a.solve.preset.empty() && !a.solve.problem.empty())
    throw InvalidArgument("--solve, --problem: give one of them", Error::Scope::all_ranks);
  return a;
}

Facts facts_of(const Communicator& communicator, const Arguments& a) {
  Facts facts = machine_facts(communicator, a.threads);
  facts.insert(facts.end(), {{"n", std::to_string(a.rows)},
                             {"d", std::to_string(a.columns)},
                             {"type", a.type},
                             {"nonzeros", a.type == "csr" ? std::to_string(a.nonzeros) : ""}});
  return facts;
}

BenchMatrix make_matrix(const Communicator& communicator, const Arguments& a) {
  return a.type == "csr" ? BenchMatrix::sparse(communicator, a.rows, a.columns, a.nonzeros)
                         : BenchMatrix::dense(communicator, a.solve.type, a.rows, a.columns, a.solve.type);
}

/// In the order of `names`, "-name" leaving one out again; throws on all ranks for a name that is not there.
std::vector<const Kernel*> chosen(const std::vector<Kernel>& kernels, const std::string& names) {
  std::vector<const Kernel*> out;
  std::istringstream list(names);
  for (std::string name; std::getline(list, name, ',');) {
    if (name == "all") {
      for (const auto& kernel : kernels) out.push_back(&kernel);
      continue;
    }
    const bool removes = name.starts_with('-');
    const auto found = std::ranges::find(kernels, removes ? name.substr(1) : name, &Kernel::name);
    if (removes)
      std::erase_if(out, [&](const Kernel* kernel) { return found != kernels.end() && kernel == &*found; });
    else if (found == kernels.end())
      throw InvalidArgument("--kernels " + name + ": no such kernel; see --kernels list", Error::Scope::all_ranks);
    else
      out.push_back(&*found);
  }
  return out;
}

void bench_kernels(const Communicator& communicator, const Arguments& a, const Facts& facts) {
  Report report(communicator, a.csv, facts);
  const BenchMatrix matrix = make_matrix(communicator, a);
  const double bytes = communicator.sum(matrix.A().bytes_local());
  char line[320];
  const ReadTime read = read_time(matrix, std::max(7, a.repeat));
  std::snprintf(line, sizeof line, "A: %.3f GB; R = %.3f ms (%.2f GB/s); four streams: %.3f ms (%.2f GB/s); load %.1f",
                bytes / 1e9, 1e3 * read.one_stream, bytes / read.one_stream / 1e9, 1e3 * read.four_streams,
                bytes / read.four_streams / 1e9, load_average());
  report.say(line);
  if (bytes / communicator.ranks_on_node() * communicator.size() < 4 * last_cache_bytes())
    report.say("warning: A is smaller than 4 last-level caches, ratios to R mean little");

  std::optional<BenchMatrix> twin;
  if (matrix.type() != RowType::f64 && matrix.type() != RowType::csr)
    twin = BenchMatrix::dense(communicator, RowType::f64, a.rows, a.columns, matrix.type());
  Workbench workbench(matrix, twin ? &*twin : nullptr);
  const auto kernels = workbench.kernels();
  if (a.kernels == "list") {
    for (const auto& kernel : kernels) report.say(kernel.name + " " + kernel.goal);
    return;
  }
  report.add_figure("R_seconds", "", read.one_stream);
  report.add_figure("R4_seconds", "", read.four_streams);
  for (const Kernel* kernel : chosen(kernels, a.kernels)) {
    const auto versus = std::ranges::find(kernels, kernel->versus, &Kernel::name);
    report.add(measure(matrix, *kernel, versus == kernels.end() ? nullptr : &*versus, a.repeat));
  }
}

int run(int argc, char** argv) {
  const Communicator communicator(MPI_COMM_WORLD);
  try {
    auto arguments = parse(argc, argv, communicator.is_root());
    if (!arguments) return 0;
    if (!arguments->solve.problem.empty()) {
      auto& plan = arguments->solve;
      read_shape(communicator, plan);
      arguments->rows = plan.rows, arguments->columns = plan.columns, arguments->nonzeros = plan.nonzeros;
      arguments->type = type_name(plan.type);
    }
    omp_set_num_threads(arguments->threads);
    if (openblas_set_num_threads != nullptr) openblas_set_num_threads(1);
    const Facts facts = facts_of(communicator, *arguments);
    for (const auto& [name, value] : facts)
      if (communicator.is_root()) std::printf("%s: %s\n", name.c_str(), value.c_str());
    if (arguments->solve.preset.empty() && arguments->solve.problem.empty())
      bench_kernels(communicator, *arguments, facts);
    else
      bench_solve(communicator, arguments->solve, facts, arguments->csv);
    return 0;
  } catch (const std::exception& error) {
    if (communicator.is_root() || communicator.size() == 1) std::fprintf(stderr, "attnreg_bench: %s\n", error.what());
    const auto* ours = dynamic_cast<const Error*>(&error);
    const bool on_all = (ours != nullptr && ours->scope() == Error::Scope::all_ranks) ||
                        dynamic_cast<const po::error*>(&error) != nullptr;
    if (!on_all) MPI_Abort(MPI_COMM_WORLD, 1);
    return 2;
  }
}

}  // namespace
}  // namespace attnreg::bench

int main(int argc, char** argv) {
  int provided = 0;
  MPI_Init_thread(&argc, &argv, MPI_THREAD_FUNNELED, &provided);
  const int code = attnreg::bench::run(argc, argv);
  MPI_Finalize();
  return code;
}
