#include "problems/problem_generator.hpp"

#include "app/options/commands.hpp"
#include "app/report/json.hpp"
#include "app/report/text.hpp"
#include "app/run/run_directory.hpp"
#include "errors/printable.hpp"
#include "files/output_file.hpp"
#include "losses/losses.hpp"
#include "ranks/activity.hpp"
#include "ranks/stop.hpp"

namespace attnreg {

ATTNREG_JSON(ProblemFacts, z_true_std, z_true_max, b_max, neff_b, w_mean, loss_at_0, reg_at_xtrue)

}  // namespace attnreg

namespace attnreg::app {

namespace {

constexpr std::string_view kGenerateEpilogue = R"(Presets:
  easy        strongly regularised, nearly a ridge regression
  practical   Gaussian rows, small weights
  illcond     singular values that fall from 1 to 1/decay
  coherent    heavy-tailed rows: a few of them carry much of A
  sparse      a few entries in each row, else as practical
  misfit      b is noisy, or not of A at all, so that L has several minima

Examples:
  mpirun -n 4 attnreg generate practical --rows 100000 --cols 50 --seed 1 -o problem
  mpirun -n 4 attnreg solve problem/A.npy problem/b.npy --weights problem/w.npy
  attnreg generate practical --loss cosh --rows 10000 --cols 20 -o problem

The files are the same for any number of ranks. Of sparse A is A.npz, a CSR matrix as scipy.sparse.load_npz reads it;
its arrays are also in A_data.npy, A_indices.npy and A_indptr.npy.
)";

constexpr std::int64_t kMostRows = std::int64_t{1} << 40;

const Syntax kGenerateSyntax{
    "generate",
    "Write a test problem of any size: A.npy (sparse: A.npz), b.npy, w.npy, x_true.npy and meta.json.",
    {{"PRESET", "easy, practical, illcond, coherent, sparse or misfit", Choice{preset_names()}}},
    {{"Problem",
      {{"rows", 0, "N", Integer{1, kMostRows}, "", "rows of A; needed"},
       {"cols", 0, "D", Integer{1, 1000000}, "", "columns of A; needed"},
       {"loss", 0, "NAME", Choice{loss_names()}, "softmax", "b is what this loss fits, at x_true"},
       {"seed", 0, "S", Integer{0}, "20240607", "of the random numbers"},
       {"spread", 0, "V", Number{0, true}, "3",
        "standard deviation of the true logits A x (practical, illcond, sparse, misfit)"},
       {"weight-scale", 0, "V", Number{0}, "1e-3", "w is about V / sqrt(N) (not for easy)"},
       {"decay", 0, "V", Number{1}, "1e5", "largest over smallest singular value (illcond)"},
       {"neff", 0, "V", Number{1}, "200", "effective support 1 / sum b^2 (coherent)"},
       {"nonzeros-per-row", 0, "K", Integer{1, 1000000}, "10", "entries in each row, at most D (sparse)"},
       {"logit-noise", 0, "V", Number{0}, "2", "standard deviation of the noise on the true logits (misfit)"},
       {"zipf", 0, "", Switch{}, "", "b by Zipf's law, whatever A is, and w = 0.1 / N (misfit)"},
       {"dtype", 0, "TYPE", Choice{{"float64", "float32"}}, "float64", "type of A"}}},
     {"Computing",
      {{"threads", 0, "N", Integer{1, 4096}, "", "threads per rank"}, watchdog_option(), progress_option()}},
     {"Output",
      {{"output", 'o', "DIR", Text{}, "", "directory for the files; needed"},
       json_option("print meta.json in place of a line"),
       {"force", 0, "", Switch{}, "", "replace a problem in DIR"}}}},
    kGenerateEpilogue};

ProblemOptions problem_options(const Arguments& arguments) {
  ProblemOptions options;
  options.preset = preset_by_name(arguments.text("PRESET"));
  options.loss = arguments.text("loss");
  options.rows = arguments.integer("rows");
  options.columns = arguments.integer("cols");
  options.seed = arguments.seed();
  options.spread = arguments.number("spread");
  options.weight_scale = arguments.number("weight-scale");
  options.decay = arguments.number("decay");
  options.neff = arguments.number("neff");
  options.nonzeros_per_row = arguments.integer("nonzeros-per-row");
  options.logit_noise = arguments.number("logit-noise");
  options.zipf = arguments.on("zipf");
  options.type = arguments.text("dtype") == "float32" ? Storage::float32 : Storage::float64;
  return options;
}

std::vector<std::string> file_names(Preset preset) {
  std::vector<std::string> names{"A.npy"};
  if (preset == Preset::sparse) names = {"A.npz", "A_data.npy", "A_indices.npy", "A_indptr.npy"};
  names.insert(names.end(), {"b.npy", "w.npy", "x_true.npy", "meta.json"});
  return names;
}

nlohmann::ordered_json meta_json(const Arguments& arguments, const ProblemFacts& facts) {
  nlohmann::ordered_json meta{
      {"schema", "attnreg-problem-1"},        {"preset", arguments.text("PRESET")},
      {"loss", arguments.text("loss")},       {"n", arguments.integer("rows")},
      {"d", arguments.integer("cols")},       {"seed", arguments.integer("seed")},
      {"spread", arguments.number("spread")}, {"weight_scale", arguments.number("weight-scale")},
      {"decay", arguments.number("decay")},   {"neff", arguments.number("neff")},
      {"dtype", arguments.text("dtype")}};
  if (arguments.text("PRESET") == "sparse") meta["nonzeros_per_row"] = arguments.integer("nonzeros-per-row");
  if (arguments.text("PRESET") == "misfit")
    meta.update({{"logit_noise", arguments.number("logit-noise")}, {"zipf", arguments.on("zipf")}});
  if (facts.row_norm2_max_over_mean) meta["row_norm2_max_over_mean"] = *facts.row_norm2_max_over_mean;
  if (facts.row_norm2_top_quarter_d_share) meta["row_norm2_top_quarter_d_share"] = *facts.row_norm2_top_quarter_d_share;
  meta.update(facts);
  return meta;
}

ExitCode generate(const Communicator& communicator, const Arguments& arguments) {
  for (const std::string_view name : {"rows", "cols", "output"}) arguments.require(name);
  const ProblemOptions options = problem_options(arguments);
  const std::string directory = arguments.text("output");
  set_threads(communicator, arguments);
  communicator.agree_on_root(
      [&] { prepare_directory(directory, file_names(options.preset), arguments.on("force"), "problem"); });
  const InPhase working(Phase::solve);
  const ProblemFacts facts = generate_problem(communicator, options, directory);
  const auto meta = meta_json(arguments, facts);
  StopsEndPhases::end();
  communicator.agree_on_root([&] { write_file(directory + "/meta.json", json_text(meta)); });
  const bool is_sparse = options.preset == Preset::sparse;
  const std::string size = std::to_string(options.rows) + " x " + std::to_string(options.columns) + " " +
                           arguments.text("dtype") +
                           (is_sparse ? ", " + std::to_string(options.nonzeros_per_row) + " entries in a row" : "");
  print_result(communicator,
               arguments.on("json")
                   ? json_text(meta)
                   : to_width(printable(directory) + (is_sparse ? ": A.npz (" : ": A.npy (") + size +
                              "), b.npy, w.npy, x_true.npy, meta.json; effective support of b " +
                              scientific(facts.neff_b, 4) + " rows, mean w " + scientific(facts.w_mean, 4) + "\n"));
  return ExitCode::converged;
}

}  // namespace

Command generate_command() { return {kGenerateSyntax, generate}; }

}  // namespace attnreg::app
