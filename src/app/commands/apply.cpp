#include <algorithm>
#include <cmath>
#include <utility>

#include "app/options/commands.hpp"
#include "app/report/json.hpp"
#include "app/report/text.hpp"
#include "app/run/problem.hpp"
#include "attnreg/apply_attention.hpp"
#include "attnreg/files.hpp"
#include "errors/printable.hpp"
#include "files/npz_writer.hpp"
#include "files/output_file.hpp"
#include "ranks/activity.hpp"
#include "ranks/span_of.hpp"
#include "rows/dense_rows.hpp"

namespace attnreg::app {

namespace {

constexpr std::string_view kApplyEpilogue = R"(Examples:
  mpirun -n 4 attnreg apply Q.npy K.npy V.npy --scale 1/sqrt-d -o O.npy
  attnreg apply Q.npy K.npy V.npy --mask causal -o O.npy
  attnreg apply Q.npy K.npy V.npy --kernel polynomial --degree 4 -o O.npy
  attnreg apply Q.npy K.npy V.npy --kernel polynomial --degree 4 --sketch 2048 -o O.npy
  attnreg apply Q.npy K.npy V.npy --kernel threshold --tau 2.5 -o O.npy
  attnreg apply Q.npy K.npy V.npy --kernel threshold --top 32 --sparse S.npz --rank-one r.npy -o O.npy

O = P V with P_ij = g(z_ij) / sum_k g(z_ik), z_ij = scale q_i . k_j. The queries are spread over the ranks, keys and
values pass by in blocks, and P is never formed. threshold: logits of at least tau exactly, or the largest K, one weight
for the others of a row, P = S + r 1^T; it prints how many queries Grover's search would need (a simulation).
)";

const Syntax kApplySyntax{
    "apply",
    "Apply attention: softmax, polynomial, or exact above a threshold with a rank-one background.",
    {{"Q", "queries, n_q x d, .npy or sparse .npz"}, {"K", "keys, n_k x d"}, {"V", "values, n_k x d_v"}},
    {{"Attention",
      {{"kernel", 0, "NAME", Choice{{"softmax", "polynomial", "threshold"}}, "softmax",
        "g(z): e^z; z^degree; e^z where z >= tau"},
       {"degree", 0, "B", Integer{1, 1 << 20}, "2", "polynomial: odd ones refuse negative logits"},
       {"sketch", 0, "M", Integer{4, 1 << 24}, "",
        "polynomial: a TensorSketch with M features in place of exact powers, in time linear in the keys; its error "
        "is measured on 256 queries"},
       {"sketch-weights", 0, "NAME", Choice{{"auto", "squares", "unbiased"}}, "auto",
        "of --sketch: squares of a sketch of half the degree, never below 0; those of a sketch of the degree, "
        "unbiased, "
        "which may be; auto: squares for even degrees"},
       {"tau", 0, "T", Number{-1e300}, "", "threshold: smallest logit that counts exactly; this or --top"},
       {"top", 0, "K", Integer{1, 2147483647}, "", "threshold: the K largest logits of a query count exactly"},
       {"background", 0, "NAME", Choice{{"row-mean", "exp-of-mean", "zero"}}, "row-mean",
        "threshold: weight of the others: mean of their e^z; e^(mean of their z); 0"},
       scale_option("of the logits, d being the columns of Q"),
       mask_option(),
       {"compare", 0, "", Switch{}, "", "threshold: softmax is computed, too, and the error against it printed"},
       {"seed", 0, "S", Integer{0}, "1", "threshold: of the simulated searches; of --sketch"}}},
     computing_options(),
     {"Output",
      {{"output", 'o', "FILE", Text{}, "", "where O goes, n_q x d_v, .npy; needed"},
       {"sparse", 0, "FILE", Text{}, "", "threshold: where S goes, n_q x n_k, a csr matrix in .npz"},
       {"rank-one", 0, "FILE", Text{}, "", "threshold: where r goes, n_q, .npy"},
       json_option("print the figures as JSON"),
       force_option()}}},
    kApplyEpilogue};

struct Inputs {
  RowMatrix queries, keys, values;
  std::optional<AttentionMask> loaded_mask{};

  const AttentionMask* mask() const { return loaded_mask ? &*loaded_mask : nullptr; }
};

/// Collective. |O~ - O|_F / |O|_F for the O of softmax.
double error_against_softmax(const Inputs& in, const RowMajorMatrix& output, double scale) {
  const Communicator& communicator = in.queries.communicator();
  const RowMajorMatrix exact_output =
      apply_attention(in.queries, in.keys, in.values, {.scale = scale}, in.mask()).output;
  double size = exact_output.size() > 0 ? exact_output.cwiseAbs().maxCoeff() : 0;  // the squares might overflow
  size = communicator.max(std::max(size, output.size() > 0 ? output.cwiseAbs().maxCoeff() : 0));
  if (size == 0) size = 1;
  double sums[] = {(output / size - exact_output / size).squaredNorm(), (exact_output / size).squaredNorm()};
  communicator.sum(sums);
  return sums[1] > 0 ? std::sqrt(sums[0] / sums[1]) : std::sqrt(sums[0]);
}

/// Collective. What was exact, and what its search would cost.
nlohmann::ordered_json threshold_figures(const Inputs& in, const ThresholdAttention& result, std::uint64_t seed) {
  const Communicator& communicator = in.queries.communicator();
  std::int64_t marked = 0, grover = 0, scanned = 0;
  double law = 0;
  const InWork searches("simulated searches", "queries", static_cast<double>(result.marked.size()));
  for (std::size_t i = 0; i < result.marked.size(); ++i) {
    InWork::add(1);
    const std::int64_t keys = result.visible[i];
    marked += result.marked[i];
    scanned += keys;
    grover +=
        simulated_grover_queries(keys, result.marked[i], seed, in.queries.first_row() + static_cast<std::int64_t>(i));
    law += std::sqrt(static_cast<double>(keys) * static_cast<double>(result.marked[i]));
  }
  return {{"marked", communicator.sum(marked)},
          {"classical_queries", communicator.sum(scanned)},
          {"simulated_grover_queries", communicator.sum(grover)},
          {"sum_sqrt_keys_marked", communicator.sum(law)}};
}

/// |found - exact|_F / |exact|_F, the squares of which may overflow.
double relative_error(const Communicator& communicator, const RowMajorMatrix& found, const RowMajorMatrix& exact) {
  double size = exact.size() > 0 ? std::max(exact.cwiseAbs().maxCoeff(), found.cwiseAbs().maxCoeff()) : 0;
  size = communicator.max(size);
  if (size == 0) return 0;
  double sums[] = {(found / size - exact / size).squaredNorm(), (exact / size).squaredNorm()};
  communicator.sum(sums);
  return std::sqrt(sums[0] / sums[1]);
}

/// How far a sketch, and the mean of all values, are from exact attention, for 256 queries or all.
nlohmann::ordered_json sketch_figures(const Inputs& in, const AttentionKernel& kernel,
                                      const SketchedAttention& result) {
  constexpr std::int64_t kCompared = 256;
  const Communicator& communicator = in.queries.communicator();
  const std::int64_t n = in.queries.rows_global(), step = (n + kCompared - 1) / kCompared;
  const std::int64_t begin = in.queries.first_row(), first = (begin + step - 1) / step * step;
  const std::int64_t end = begin + in.queries.rows_local();
  const auto count = static_cast<Eigen::Index>(first < end ? (end - first + step - 1) / step : 0);
  RowMajorMatrix some(count, in.queries.columns()), found(count, in.values.columns());
  for (Eigen::Index k = 0; k < count; ++k) {
    const auto local = static_cast<Eigen::Index>(first - begin + k * step);
    some.row(k) = dense_rows(in.queries, local, 1);
    found.row(k) = result.output.row(local);
  }
  const RowMatrix compared(communicator, RowPartition::from_local(communicator, count), std::move(some));
  const RowMajorMatrix exact = apply_attention(compared, in.keys, in.values, kernel).output;
  const RowMajorMatrix values = dense_rows(in.values, 0, in.values.rows_local());
  RowMajorMatrix mean = (values / static_cast<double>(in.values.rows_global())).colwise().sum();  // no sum overflows
  communicator.sum(span_of(mean));
  return {{"sketch_features", result.features},
          {"compared_queries", compared.rows_global()},
          {"error_against_exact", relative_error(communicator, found, exact)},
          {"error_of_uniform", relative_error(communicator, mean.replicate(count, 1), exact)}};
}

PolynomialSketch polynomial_sketch(const Arguments& arguments) {
  return {.degree = arguments.integer("degree"),
          .features = arguments.integer("sketch"),
          .seed = arguments.seed(),
          .weights = static_cast<PolynomialSketch::Weights>(arguments.choice("sketch-weights"))};
}

ThresholdOptions threshold_options(const Arguments& arguments, double scale) {
  const auto background = static_cast<ThresholdOptions::Background>(arguments.choice("background"));
  return {.tau = arguments.has("tau") ? arguments.number("tau") : 0,
          .background = background,
          .scale = scale,
          .top = arguments.has("top") ? arguments.integer("top") : 0,
          .keep_entries = arguments.given("sparse") || arguments.given("rank-one")};
}

/// Collective. Attention above a threshold, with the files that belong to it; `json` gets its figures.
RowMajorMatrix apply_threshold(const Inputs& in, const Arguments& arguments, double scale,
                               nlohmann::ordered_json& json) {
  const Communicator& communicator = in.queries.communicator();
  ThresholdAttention result =
      threshold_attention(in.queries, in.keys, in.values, threshold_options(arguments, scale), in.mask());
  json.update(threshold_figures(in, result, arguments.seed()));
  if (arguments.on("compare")) json["error_against_softmax"] = error_against_softmax(in, result.output, scale);
  const std::int64_t first = in.queries.first_row(), count = in.queries.rows_global();
  if (arguments.given("sparse"))
    write_sparse(communicator, arguments.text("sparse"), "csr", first, count, std::move(result.entries));
  if (arguments.given("rank-one"))
    write_npy(communicator, arguments.text("rank-one"), {count}, first, span_of(std::as_const(result.rank_one)));
  return std::move(result.output);
}

/// Throws `UsageError` for options of another kernel.
void check_options(const Arguments& arguments) {
  arguments.require("output");
  check_mask_option(arguments);
  const std::string kernel = arguments.text("kernel");
  arguments.exclude("tau", "top");
  if (kernel == "threshold" && !arguments.given("top")) arguments.require("tau");
  if (kernel != "polynomial") arguments.refuse({"degree", "sketch"}, "is for --kernel polynomial");
  if (kernel != "threshold")
    arguments.refuse({"tau", "top", "background", "compare", "sparse", "rank-one"}, "is for --kernel threshold");
  if (kernel != "threshold" && !arguments.has("sketch"))
    arguments.refuse({"seed"}, "is for --kernel threshold and for --sketch");
  if (!arguments.has("sketch")) arguments.refuse({"sketch-weights"}, "is for --sketch");
  if (arguments.has("sketch") && arguments.text("mask") != "none")
    throw UsageError("--sketch is for all keys, and takes no --mask");
}

std::string figures_text(const nlohmann::ordered_json& json) {
  std::string text = printable(json["output"].get<std::string>()) + ": attention of " +
                     std::to_string(json["queries"].get<std::int64_t>()) + " queries over " +
                     counted(json["keys"], "key") + ", " + counted(json["value_columns"], "value column") + "\n";
  if (json.contains("sketch_features"))
    text += "  features of a sketch  " + std::to_string(json["sketch_features"].get<std::int64_t>()) +
            "\n  error against exact attention  " + plain(json["error_against_exact"], 3) +
            " (relative, Frobenius norm, " + std::to_string(json["compared_queries"].get<std::int64_t>()) +
            " queries); of the mean of all values " + plain(json["error_of_uniform"], 3) + "\n";
  if (!json.contains("marked")) return text;
  const double marked = json["marked"], law = json["sum_sqrt_keys_marked"], grover = json["simulated_grover_queries"];
  text += "  exact entries        " + plain(marked, 12) + ", " +
          plain(100 * marked / json["classical_queries"].get<double>(), 3) + " % of all\n";
  if (json.contains("error_against_softmax"))
    text += "  error against softmax  " + plain(json["error_against_softmax"], 3) + " (relative, Frobenius norm)\n";
  text += "  queries of a search  " + plain(json["classical_queries"], 12) + " by this scan; " + plain(grover, 12) +
          " by Grover's search";
  if (law > 0) text += ", " + plain(grover / law, 3) + " sqrt(keys marked) a query";
  return text + " (simulated; finding all, not proving that none is left)\n";
}

ExitCode run_apply(const Communicator& communicator, const Arguments& arguments) {
  check_options(arguments);
  const std::string path = arguments.text("output");
  set_threads(communicator, arguments);
  communicator.agree_on_root([&] {
    for (const auto* const option : {"output", "sparse", "rank-one"})
      if (arguments.given(option)) check_output(arguments.text(option), arguments.on("force"));
  });
  const auto load = [&](const char* role) {
    return load_matrix(communicator, arguments.text(role), storage_choice(arguments));
  };
  MaskSource mask;
  communicator.agree([&] { mask = examine_mask(arguments.text("mask"), "mask"); });
  Inputs in{load("Q"), load("K"), load("V")};
  in.loaded_mask = load_mask(communicator, mask, in.queries.partition(), in.keys.rows_global());
  const double scale = scale_factor(arguments, in.queries.columns());
  const InPhase working(Phase::solve);
  nlohmann::ordered_json json = document_of("apply", arguments);
  json.update({{"output", path},
               {"queries", in.queries.rows_global()},
               {"keys", in.keys.rows_global()},
               {"value_columns", in.values.columns()}});
  RowMajorMatrix output;
  if (arguments.text("kernel") == "threshold") {
    output = apply_threshold(in, arguments, scale, json);
  } else {
    AttentionKernel kernel{.degree = arguments.integer("degree"), .scale = scale};
    if (arguments.text("kernel") == "polynomial") kernel.kind = AttentionKernel::Kind::polynomial;
    if (arguments.has("sketch")) {
      SketchedAttention result = sketched_attention(in.queries, in.keys, in.values, polynomial_sketch(arguments));
      json.update(sketch_figures(in, kernel, result));
      output = std::move(result.output);
    } else {
      output = apply_attention(in.queries, in.keys, in.values, kernel, in.mask()).output;
    }
  }
  write_npy(communicator, path, {in.queries.rows_global(), in.values.columns()}, in.queries.first_row(),
            span_of(output));
  print_result(communicator, arguments.on("json") ? json_text(json) : to_width(figures_text(json)));
  return ExitCode::converged;
}

}  // namespace

Command apply_command() { return {kApplySyntax, run_apply}; }

}  // namespace attnreg::app
