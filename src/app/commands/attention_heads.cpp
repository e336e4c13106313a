#include "app/commands/attention_heads.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>
#include <optional>

#include "app/options/commands.hpp"
#include "app/report/head_report.hpp"
#include "app/report/summary.hpp"
#include "app/report/text.hpp"
#include "app/report/verdict.hpp"
#include "app/run/session.hpp"
#include "errors/faults.hpp"
#include "errors/printable.hpp"
#include "files/source_name.hpp"
#include "ranks/activity.hpp"
#include "ranks/span_of.hpp"

namespace attnreg::app {

namespace {

/// The share of --holdout; none: a list, or nothing.
std::optional<double> held_out_share(const Arguments& arguments) {
  if (!arguments.given("holdout")) return std::nullopt;
  const std::string text = arguments.text("holdout");
  const auto share = number_in<double>(text);
  if (share && !(*share > 0 && *share < 1))
    throw UsageError("--holdout is '" + printable(text) + "'; a share is between 0 and 1, a list is a file");
  return share;
}

/// Of the axis of heads of a target; none: the target is a matrix, of one head.
std::optional<std::int64_t> heads_of(const SequenceFiles& files) {
  const auto& shape = files.target.header.shape;
  return shape.size() == 3 ? std::optional(shape[0]) : std::nullopt;
}

/// Throws `InvalidArgument` unless all targets have the heads of the first of `files`.
void check_heads(const std::vector<SequenceFiles>& files, const SequenceFiles& first) {
  for (const auto& file : files)
    if (heads_of(file) != heads_of(first) || heads_of(file) == 0)
      throw InvalidArgument(printable(file.target.header.path) + ": " + file.target.role + " has shape " +
                            file.target.header.shape_text() + ", " + printable(first.target.header.path) + " has " +
                            first.target.header.shape_text() +
                            "; all sequences have the same heads, at least one: (heads, queries, keys)");
}

/// Several heads are a table in files, (heads, rows, columns): heads of lower rank have columns of zeros.
struct Stacked {
  std::vector<double> numbers;
  std::vector<std::int64_t> shape;
};

Stacked stacked(const std::vector<HeadResult>& heads, RowMajorMatrix HeadResult::*matrix) {
  Index rows = 0, columns = 0;
  for (const auto& head : heads) {
    rows = std::max(rows, (head.*matrix).rows());
    columns = std::max(columns, (head.*matrix).cols());
  }
  Stacked all{std::vector<double>(heads.size() * static_cast<std::size_t>(rows * columns)),
              {std::ssize(heads), rows, columns}};
  double* next = all.numbers.data();
  for (const auto& head : heads) {
    const RowMajorMatrix& M = head.*matrix;
    Eigen::Map<RowMajorMatrix>(next, rows, columns).topLeftCorner(M.rows(), M.cols()) = M;
    next += rows * columns;
  }
  return all;
}

class HeadSession : public Session {
 public:
  HeadSession(const Communicator& communicator, const Arguments& arguments, std::vector<SequenceFiles> files)
      : Session(communicator, arguments), files_(std::move(files)) {}

 private:
  ExitCode load_and_solve() override {
    std::vector<SequenceFiles> held_out_files;
    communicator_.agree([&] { held_out_files = hold_out(); });
    std::vector<SequenceFiles> all = files_;
    all.insert(all.end(), held_out_files.begin(), held_out_files.end());
    inputs_ = list_of(all);
    begin(inputs_, bytes(all), "heads over " + counted(std::ssize(files_), "sequence"));
    const Loaded fitted = load(files_), held_out = load(held_out_files);
    faults::at("after-load");
    const std::string mask = missing_mask(communicator_, fitted.sequences, fitted.heads[0]);
    if (!mask.empty() && communicator_.is_root() && !arguments_.on("quiet")) print_line("attnreg: warning: " + mask);
    ready({}, false);
    timing_.loading = clock_.seconds();
    std::vector<HeadResult> heads = recover(fitted);
    timing_.solve = clock_.seconds() - timing_.loading;
    for (auto& head : heads) {
      if (!mask.empty()) head.warnings.insert(head.warnings.begin(), mask);
      add_notes_on_bias(head);
    }
    std::optional<InPhase> measuring(Phase::certificate);
    std::vector<HeadReport> reports;
    for (std::size_t h = 0; h < heads.size(); ++h) {
      reports.push_back({heads[h], head_quality(communicator_, fitted.sequences, heads[h], fitted.heads[h]), {}});
      if (!held_out_files.empty())
        reports.back().held_out = head_quality(communicator_, held_out.sequences, heads[h], held_out.heads[h]);
    }
    measuring.reset();
    const bool converged = std::ranges::all_of(heads, &HeadResult::converged);
    int steps = 0;
    for (const auto& head : heads) steps += head.steps + head.polish_steps;
    const NewtonSummary outcome{.termination = converged ? Termination::converged : Termination::iteration_limit,
                                .relative_gradient = std::numeric_limits<double>::quiet_NaN(),
                                .iterations = steps};
    const ExitCode code = code_of(outcome.termination);
    end({outcome, code, [&] { return json_of(heads, reports, fitted.sequences, outcome); }, [&] { write(heads); },
         [&](const std::vector<std::string>& written) { return summary(heads, reports, fitted.sequences, written); }});
    return code;
  }

  /// Sequences without targets, and of each head its targets.
  struct Loaded {
    std::vector<AttentionSequence> sequences;
    std::vector<std::vector<AttentionMatrix>> heads;
  };

  std::vector<HeadResult> recover(const Loaded& fitted) const {
    const InPhase solve(Phase::solve);
    return attnreg::recover_heads(communicator_, fitted.sequences, fitted.heads, options());
  }

  Loaded load(const std::vector<SequenceFiles>& files) const {
    Loaded loaded{load_inputs(communicator_, files), {}};
    if (files.empty()) return loaded;
    const auto count = heads_of(files[0]);
    for (std::int64_t h = 0; h < count.value_or(1); ++h) {
      auto& head = loaded.heads.emplace_back();
      for (std::size_t k = 0; k < files.size(); ++k) {
        const InputFile& target = files[k].target;
        const auto& sequence = loaded.sequences[k];
        const std::string path = count ? part_of(target.header.path, h) : target.header.path;
        const Index keys = sequence.keys.rows();
        if (held_as_float(storage_choice(arguments_), target.header.type) == Storage::float32)
          head.emplace_back(load_matrix_rows<float>(communicator_, path, target.role, sequence.partition, keys));
        else
          head.emplace_back(load_matrix_rows(communicator_, path, target.role, sequence.partition, keys));
      }
    }
    const auto add_ones = [](RowMajorMatrix& matrix) {
      matrix.conservativeResize(Eigen::NoChange, matrix.cols() + 1);
      matrix.rightCols(1).setOnes();
    };
    for (auto& sequence : loaded.sequences) {
      if (has_bias("query")) add_ones(sequence.queries);
      if (has_bias("key")) add_ones(sequence.keys);
    }
    return loaded;
  }

  bool has_bias(std::string_view of) const {
    return arguments_.text("bias") == "both" || arguments_.text("bias") == of;
  }

  void add_notes_on_bias(HeadResult& head) const {
    const std::string P = head.rank > 0 ? "P" : "X", Q = head.rank > 0 ? "row of Q" : "column of X";
    if (has_bias("query"))
      head.notes.push_back("the last row of " + P + " is the bias of the queries" +
                           (head.has_query_constant && !head.null_directions.empty()
                                ? "; where the queries have A1 u = 1 for some u, as behind LayerNorm, nobody can tell "
                                  "it from a part of the other rows: least norm"
                                : ""));
    else if (!head.has_query_constant)
      head.notes.push_back("the queries have no u with A1 u = 1: if the head adds a bias to them, give --bias query");
    if (has_bias("key"))
      head.notes.push_back("the last " + Q +
                           ", the bias of the keys, is 0: it adds the same to all logits of a query, " +
                           "which softmax does not see; least norm");
  }

  /// What a rank holds at least: the data, a second copy of queries and keys, which are stacked, and d x d matrices.
  double bytes(const std::vector<SequenceFiles>& files) const {
    constexpr double kMatrices = 8;
    double numbers = 0, targets = 0, d = 0;
    for (const auto& file : files) {
      const auto size = [](const InputFile& input) { return static_cast<double>(input.header.elements()); };
      numbers += 2 * (size(file.queries) / communicator_.size() + size(file.keys));
      const double item =
          static_cast<double>(item_bytes(held_as_float(storage_choice(arguments_), file.target.header.type)));
      targets += item * size(file.target) / communicator_.size();
      d = static_cast<double>(std::max(file.queries.header.columns(), file.keys.header.columns()));
    }
    return 8 * (numbers + kMatrices * d * d) + targets;
  }

  /// Takes what --holdout says from the files, or from another list.
  std::vector<SequenceFiles> hold_out() {
    if (!arguments_.given("holdout")) return {};
    const auto share = held_out_share(arguments_);
    if (!share) {
      auto others = examine_list(arguments_.text("holdout"), arguments_.text("mask"));
      for (const auto& other : others) check_held_out(other);
      return others;
    }
    const auto count = static_cast<std::ptrdiff_t>(std::ceil(*share * static_cast<double>(files_.size())));
    if (count >= std::ssize(files_))
      throw InvalidArgument("--holdout leaves none of the " + counted(std::ssize(files_), "sequence"));
    std::vector<SequenceFiles> last(files_.end() - count, files_.end());
    files_.resize(files_.size() - last.size());
    return last;
  }

  /// Throws `InvalidArgument` for what the heads of the fit cannot predict.
  void check_held_out(const SequenceFiles& other) const {
    const std::string list = "--holdout " + printable(arguments_.text("holdout")) + ": ";
    if (other.values || other.weights)
      throw InvalidArgument(list + "held-out sequences have queries, keys and target, and no values or weights");
    for (const auto file : {&SequenceFiles::queries, &SequenceFiles::keys})
      if ((other.*file).header.columns() != (files_[0].*file).header.columns())
        throw InvalidArgument(list + printable((other.*file).header.path) + " has " +
                              counted((other.*file).header.columns(), "column") + ", those of the fit have " +
                              std::to_string((files_[0].*file).header.columns()));
    check_heads({other}, files_[0]);
  }

  std::string loss() const {
    const std::string form = arguments_.text("form");
    return form == "auto" ? "cross-entropy" : form == "normalised" ? "softmax" : form;
  }

  HeadOptions options() const {
    HeadOptions options;
    options.journal = journal_;
    options.loss = loss();
    options.rank = rank_option(arguments_);
    options.weight = arguments_.number("weight");
    options.rounding = rounding_of(files_[0].target.header, storage_choice(arguments_));
    options.split = static_cast<HeadSplit>(arguments_.choice("split"));
    options.seed = arguments_.seed();
    return options;
  }

  nlohmann::ordered_json json_of(const std::vector<HeadResult>& heads, const std::vector<HeadReport>& reports,
                                 const std::vector<AttentionSequence>& sequences, const NewtonSummary& outcome) const {
    nlohmann::ordered_json run = run_json(inputs_, tile_rows(sequences[0].keys.rows()));
    const double worst = worst_error(heads);
    nlohmann::ordered_json summary{{"termination", termination_name(outcome.termination)},
                                   {"method", "log-odds"},
                                   {"form", loss()},
                                   {"relative_error", worst},
                                   {"verdict", heads_verdict_text(reports)},
                                   {"reading", residual_reading(worst, "F", "B")}};
    summary.update(timing_json(timing_));
    run["summary"] = summary;
    if (heads_of(files_[0])) {
      for (const auto& report : reports) run["heads"].push_back(head_json(report));
    } else {
      run["head"] = head_json(reports[0]);
    }
    run.update({{"notes", remarks(heads, &HeadResult::notes)}, {"warnings", remarks(heads, &HeadResult::warnings)}});
    return run;
  }

  static double worst_error(const std::vector<HeadResult>& heads) {
    double worst = 0;
    for (const auto& head : heads) worst = std::max(worst, head.error);
    return worst;
  }

  void write(const std::vector<HeadResult>& heads) {
    const bool with_x = heads.size() == 1 || arguments_.on("write-x") ||
                        std::ranges::any_of(heads, [](const auto& head) { return head.rank == 0; });
    const auto write_matrix = [&](std::string_view name, RowMajorMatrix HeadResult::*matrix, bool wanted) {
      Stacked all = wanted ? stacked(heads, matrix) : Stacked{};
      if (!heads_of(files_[0]) && wanted) all.shape.erase(all.shape.begin());
      if (!all.numbers.empty()) directory_.write_array(name, all.numbers, all.shape);
    };
    write_matrix("X.npy", &HeadResult::X, with_x);
    write_matrix("P.npy", &HeadResult::P, true);
    write_matrix("Q.npy", &HeadResult::Q, true);
  }

  std::string summary(const std::vector<HeadResult>& heads, const std::vector<HeadReport>& reports,
                      const std::vector<AttentionSequence>& sequences, const std::vector<std::string>& written) const {
    const HeadResult& first = heads[0];
    int steps = 0, polish = 0, reads = 0, products = 0;
    const double worst = worst_error(heads);
    for (const auto& head : heads) {
      steps += head.steps;
      polish += head.polish_steps;
      reads += head.reads;
      products += head.products;
    }
    const bool one = heads.size() == 1, converged = std::ranges::all_of(heads, &HeadResult::converged);
    const std::string rank = one && first.rank > 0 ? " = P Q^T of rank " + std::to_string(first.rank) : "";
    return std::string(converged ? "recovered" : "stopped at the limit of steps") +
           (one ? "" : ", " + counted(std::ssize(heads), "head")) + ": |F - B| / |B| " + (one ? "= " : "at most ") +
           scientific(worst, 3) + ", F = softmax(A1 X A2^T)\n" + summary_line("verdict", heads_verdict_text(reports)) +
           summary_line("reading", residual_reading(worst, "F", "B")) +
           summary_line("problem", sequences_text(sequences, first.X.rows(), first.X.cols()) + rank) +
           summary_line("method", "log-odds, " + counted(steps, "step") +
                                      (polish > 0 ? ", " + counted(polish, "step") + " on " + loss() : "")) +
           summary_line("reads of B", std::to_string(reads) + ", and " + counted(products, "product")) +
           summary_line("seconds", seconds_text(timing_, communicator_.processes(), threads_.threads)) +
           (one ? head_text(reports[0]) : heads_text(reports)) +
           folded_text("Notes", remarks(heads, &HeadResult::notes), arguments_) +
           folded_text("Warnings", remarks(heads, &HeadResult::warnings), arguments_) + list_text("Files", written);
  }

  std::vector<SequenceFiles> files_;  ///< of the fit
  std::vector<InputFile> inputs_;     ///< also of what is held out
  Timing timing_;
};

}  // namespace

OptionGroup head_options() {
  return {"Heads, where log-odds are the start",
          {{"holdout", 0, "LIST|FRACTION", Text{}, "",
            "other sequences, or the last ones, this share of all, to measure how X predicts what it has not seen"},
           {"weight", 0, "W", Number{0}, "0", "W of 1/2 W^2 |Z|^2; 0 with --rank full: a ridge by hold-out"},
           {"bias", 0, "NAME", Choice{{"none", "query", "key", "both"}}, "none",
            "a column of ones behind A1, A2 or both, for a head that adds a bias to queries or keys; inputs behind "
            "LayerNorm need none"},
           {"split", 0, "NAME", Choice{{"sqrt", "orthogonal"}}, "sqrt",
            "of X = P Q^T = U S V^T: the root of S goes to both factors, or all of it to P"},
           {"write-x", 0, "", Switch{}, "", "X.npy of several heads, too; of one head it is written anyhow"},
           {"storage", 0, "TYPE", Choice{{"file", "float", "double"}}, "file",
            "type in which B is held in memory; sums are always in double. file: the type of the file"}}};
}

Index rank_option(const Arguments& arguments) {
  constexpr Index kMost = 1000000;
  const std::string text = arguments.text("rank");
  if (text == "auto") return HeadOptions::rank_from_data;
  if (text == "full") return 0;
  const auto rank = number_in<Index>(text);
  if (!rank || *rank < 0 || *rank > kMost)
    throw UsageError("--rank is '" + printable(text) + "'; expected auto, full or a number from 0 to " +
                     std::to_string(kMost));
  return *rank;
}

void check_head_options(const Arguments& arguments) {
  rank_option(arguments);
  held_out_share(arguments);
}

bool are_heads(const Arguments& arguments, const std::vector<SequenceFiles>& files) {
  const std::string form = arguments.text("form");
  const bool plain = std::ranges::none_of(files, [](const auto& file) { return file.values || file.weights; });
  const bool several = std::ranges::any_of(files, [](const auto& file) { return heads_of(file).has_value(); });
  std::string other, asked;
  for (const auto name : {"method", "start", "starts", "model", "rtol", "max-iterations", "time-limit", "certificate"})
    if (other.empty() && arguments.given(name)) other = std::string("--") + name;
  for (const auto name : {"holdout", "weight", "bias", "split", "write-x", "storage"})
    if (asked.empty() && arguments.given(name)) asked = std::string("--") + name;
  if (form == "log-odds") asked = "--form log-odds";
  if (several) asked = "a target of several heads";
  const bool served = form == "log-odds" || form == "auto" || form == "cross-entropy" || form == "normalised";
  const std::string why = !plain           ? "values or weights of single entries"
                          : !other.empty() ? other
                          : !served        ? "--form " + form
                                           : "";
  if (!asked.empty() && !why.empty())
    throw UsageError(asked + " is for heads that log-odds find, and does not go with " + why);
  if (!why.empty()) return false;
  check_heads(files, files[0]);
  const auto columns = [](const InputFile& file) { return std::max<std::int64_t>(file.header.columns(), 1); };
  return !asked.empty() || columns(files[0].queries) > arguments.integer("dense-limit") / columns(files[0].keys);
}

ExitCode recover_heads(const Communicator& communicator, const Arguments& arguments, std::vector<SequenceFiles> files) {
  return HeadSession(communicator, arguments, std::move(files)).run();
}

}  // namespace attnreg::app
