#include "app/commands/sparsify_tokens.hpp"

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>

#include "app/report/text.hpp"
#include "app/report/token_report.hpp"
#include "app/run/problem.hpp"
#include "app/run/run_directory.hpp"
#include "attnreg/files.hpp"
#include "errors/printable.hpp"
#include "errors/refuse.hpp"
#include "files/output_file.hpp"
#include "files/source_name.hpp"
#include "ranks/activity.hpp"
#include "ranks/root_clock.hpp"
#include "ranks/span_of.hpp"

namespace attnreg::app {

namespace {

/// In the order of `KeyMethod`.
constexpr std::array<std::string_view, 9> kKeyMethods{"halving", "output",  "mixed",  "leverage", "norm",
                                                      "values",  "uniform", "recent", "topk"};

std::string key_method(const Arguments& arguments) {
  return arguments.given("method") ? arguments.text("method") : std::string(kKeyMethods[0]);
}

/// A file with one matrix for each head, or one matrix.
struct HeadsFile {
  InputFile file;
  std::string text;

  std::int64_t heads() const { return file.header.shape.size() == 3 ? file.header.shape[0] : 1; }
  RowMatrix load(const Communicator& communicator, std::int64_t head, StorageChoice storage) const {
    return load_matrix(communicator, file.header.shape.size() == 3 ? part_of(text, head) : text, storage);
  }
};

struct TokenFiles {
  HeadsFile queries, keys, values;
  std::optional<HeadsFile> check;
  MaskSource mask;
};

/// Collective. Looks at the files.
TokenFiles examine_tokens(const Communicator& communicator, const Arguments& arguments) {
  TokenFiles files;
  const auto look = [&](const char* option, const char* role) {
    const std::string text = arguments.text(option);
    return HeadsFile{examine(role, text), text};
  };
  communicator.agree([&] {
    files.queries = look("queries", "Q");
    files.keys = look("keys", "K");
    files.values = look("values", "V");
    if (arguments.given("check-queries")) files.check = look("check-queries", "Q");
    files.mask = examine_mask(arguments.text("mask"), "mask");
    const std::int64_t heads = files.queries.heads();
    for (const HeadsFile* file : {&files.keys, &files.values, files.check ? &*files.check : nullptr})
      if (file != nullptr && file->heads() != heads)
        throw InvalidArgument(printable(file->text) + ": " + std::to_string(file->heads()) + " heads, expected " +
                              std::to_string(heads) + ", as many as " + printable(files.queries.text) + " has");
    if (heads < 1) throw InvalidArgument(printable(files.queries.text) + ": there are no heads");
  });
  return files;
}

/// What belongs to all heads, and the keys that were chosen so far, head by head.
struct Chosen {
  std::vector<std::int64_t> keys, offsets{0};
  std::vector<double> weights;

  void add(const KeptKeys& kept) {
    keys.insert(keys.end(), kept.keys.begin(), kept.keys.end());
    weights.insert(weights.end(), kept.weights.begin(), kept.weights.end());
    offsets.push_back(std::ssize(keys));
  }
};

/// Collective. keys.npy, weights.npy and offsets.npy; their names.
std::vector<std::string> write_keys(const Communicator& communicator, const Chosen& chosen,
                                    const ReportDirectory& directory) {
  const bool writes = communicator.is_root();  // all ranks have all
  const auto write = [&](const char* name, const std::vector<std::int64_t>& numbers) {
    write_integers(communicator, directory.file(name), writes ? numbers : std::vector<std::int64_t>{},
                   writes ? 0 : std::ssize(numbers), std::ssize(numbers));
  };
  write("keys.npy", chosen.keys);
  write("offsets.npy", chosen.offsets);
  const auto count = std::ssize(chosen.weights);
  const std::span<const double> all(chosen.weights);
  write_npy(communicator, directory.file("weights.npy"), {count}, writes ? 0 : count,
            writes ? all : std::span<const double>{});
  return {directory.file("keys.npy"), directory.file("weights.npy"), directory.file("offsets.npy"),
          directory.file("report.json")};
}

KeyOptions key_options(const Arguments& arguments, Index keys) {
  KeyOptions options;
  const auto* const method = std::ranges::find(kKeyMethods, key_method(arguments));
  options.method = static_cast<KeyMethod>(method - kKeyMethods.begin());
  options.keep = arguments.has("keep") ? std::min<Index>(arguments.integer("keep"), keys) : (keys + 3) / 4;
  options.first = arguments.integer("keep-first");
  options.last = arguments.integer("keep-last");
  options.seed = arguments.seed();
  return options;
}

}  // namespace

OptionGroup token_options() {
  return {"Keys of attention heads (--tokens, in place of X)",
          {{"tokens", 0, "", Switch{}, "",
            "choose keys with weights, so that softmax(Q K^T) V is kept, in place of columns of X"},
           {"queries", 0, "FILE", Text{}, "", "Q, n_q x d, or heads x n_q x d, .npy"},
           {"keys", 0, "FILE", Text{}, "", "K, n_k x d, or heads x n_k x d"},
           {"keep", 0, "M", Integer{1, 2147483647}, "", "keys that a head keeps; default: a quarter"},
           {"keep-first", 0, "N", Integer{0, 2147483647}, "0", "of these the first N, whatever is chosen"},
           {"keep-last", 0, "N", Integer{0, 2147483647}, "0", "of these the last N, whatever is chosen"},
           mask_option(),
           {"check-queries", 0, "FILE", Text{}, "",
            "other queries, on which the errors are measured in place of those of --queries"}}};
}

void check_token_options(const Arguments& arguments) {
  const std::string method = key_method(arguments);
  const bool is_for_keys = std::ranges::count(kKeyMethods, method) > 0;
  if (!arguments.on("tokens")) {
    arguments.refuse({"queries", "keys", "keep", "keep-first", "keep-last", "mask", "check-queries"},
                     "is for --tokens");
    constexpr std::array<std::string_view, 5> only{"halving", "output", "mixed", "values", "recent"};
    if (arguments.given("method") && std::ranges::count(only, method) > 0)
      throw UsageError("--method " + method + " is for --tokens");
    return;
  }
  arguments.refuse({"epsilon", "delta", "columns", "draws", "sketch-rows", "nonzeros", "jl-columns"},
                   "is for columns of X, not for --tokens");
  for (const auto name : {"queries", "keys", "values"}) arguments.require(name);
  if (!is_for_keys) throw UsageError("--method " + method + " is for columns of X, not for --tokens");
  check_mask_option(arguments);
  if (arguments.text("mask") != "none") arguments.refuse({"check-queries"}, "goes with --mask none only");
}

ExitCode sparsify_tokens(const Communicator& communicator, const Arguments& arguments) {
  const int threads = set_threads(communicator, arguments).threads;
  const ReportDirectory directory(communicator, arguments);
  const TokenFiles files = examine_tokens(communicator, arguments);
  const StorageChoice storage = storage_choice(arguments);
  TokenReport report{.arguments = arguments,
                     .method = key_method(arguments),
                     .queries = 0,
                     .keys = 0,
                     .columns = 0,
                     .value_columns = 0,
                     .scale = 1,
                     .heads = {},
                     .read_seconds = 0,
                     .choose_seconds = 0,
                     .measure_seconds = 0,
                     .ranks = communicator.size(),
                     .threads = threads,
                     .files = {}};
  Chosen chosen;
  for (std::int64_t head = 0; head < files.queries.heads(); ++head) {
    const RootClock reading(communicator);
    const RowMatrix Q = files.queries.load(communicator, head, storage),
                    K = files.keys.load(communicator, head, storage),
                    V = files.values.load(communicator, head, storage);
    const auto mask = load_mask(communicator, files.mask, Q.partition(), K.rows_global());
    report.read_seconds += reading.seconds();
    report.queries = Q.rows_global();
    report.keys = K.rows_global();
    report.columns = Q.columns();
    report.value_columns = V.columns();
    report.scale = scale_factor(arguments, Q.columns());

    const InPhase working(Phase::solve);
    const RootClock choosing(communicator);
    const TokenAttention attention(Q, K, V, report.scale, mask ? &*mask : nullptr);
    KeyOptions options = key_options(arguments, attention.key_count());
    options.head = static_cast<std::uint32_t>(head);
    const KeySums sums = attention.key_sums();
    const KeptKeys kept = choose_keys(attention, K, sums, options);
    chosen.add(kept);
    report.choose_seconds += choosing.seconds();
    HeadChoice found{.kept = std::ssize(kept.keys),
                     .is_fitted = kept.is_fitted,
                     .size = attention.size() / attention.value_scale(),
                     .errors = {}};
    if (arguments.text("metrics") == "full") {
      const RootClock measuring(communicator);
      if (files.check) {
        const RowMatrix others = files.check->load(communicator, head, storage);
        const TokenAttention on(others, K, V, report.scale, nullptr);
        found.size = on.size() / on.value_scale();
        found.errors = key_errors(on, sums, kept, options);
        found.bound = query_bound(on, kept);
      } else {
        found.errors = key_errors(attention, sums, kept, options);
        found.bound = query_bound(attention, kept);
      }
      report.measure_seconds += measuring.seconds();
    }
    report.heads.push_back(std::move(found));
  }
  if (directory.is_used()) report.files = write_keys(communicator, chosen, directory);
  directory.finish(token_json(report), to_width(token_text(report)));
  return ExitCode::converged;
}

}  // namespace attnreg::app
