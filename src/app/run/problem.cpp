#include "app/run/problem.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "app/report/text.hpp"
#include "attention/visible_keys.hpp"
#include "errors/printable.hpp"
#include "errors/refuse.hpp"
#include "files/input_file.hpp"
#include "files/mask_file.hpp"
#include "files/source_name.hpp"
#include "files/sparse_file.hpp"
#include "losses/losses.hpp"
#include "numbers/exact_sum.hpp"
#include "regression/fit.hpp"

namespace attnreg::app {

namespace {

/// One value per row of the matrix, or of targets, which say so, one row of them.
void check_rows_of(const InputFile& file, const InputFile& matrix) {
  const auto& shape = file.header.shape;
  const bool targets = file.role == "targets";
  const std::int64_t rows = matrix.header.shape[0], columns = shape.size() == 1 ? 1 : shape.size() == 2 ? shape[1] : 0;
  if (columns > 0 && shape[0] == rows && (targets || columns == 1)) return;
  const std::string expected = targets ? ", K): a column for each target, a row" : ",): one value";
  throw InvalidArgument(printable(file.header.path) + ": " + file.role + (targets ? " have" : " has") + " shape " +
                        file.header.shape_text() + ", expected (" + std::to_string(rows) + expected + " per row of " +
                        printable(matrix.header.path) +
                        (targets ? "" : ", which has shape " + matrix.header.shape_text()));
}

constexpr std::array kFiles{"queries", "keys", "values", "target", "weights"};

std::vector<std::string_view> form_names(bool to_solve) {
  std::vector<std::string_view> names{"normalised", "rescaled"};
  if (to_solve) names.insert(names.begin(), {"auto", "log-odds"});
  names.insert(names.end(), loss_names().begin(), loss_names().end());
  return names;
}

std::int64_t rows_of(const InputFile& file) { return file.header.shape.empty() ? 0 : file.header.shape[0]; }

RowMajorMatrix load_part(const Communicator& communicator, const InputFile& file, const RowPartition& partition,
                         std::int64_t columns) {
  return load_matrix_rows(communicator, file.header.path, file.role, partition, columns);
}

/// Queries, keys and mask.
AttentionSequence load_input(const Communicator& communicator, const SequenceFiles& files,
                             const RowPartition& partition) {
  RowMajorMatrix queries = load_part(communicator, files.queries, partition, files.queries.header.columns());
  RowMajorMatrix keys = load_replicated_matrix(communicator, files.keys.header.path);
  const std::int64_t n2 = keys.rows();
  return {
      partition, std::move(queries), std::move(keys), {}, {}, {}, load_mask(communicator, files.mask, partition, n2)};
}

}  // namespace

InputFile examine(const std::string& role, const std::string& path) {
  for (const auto& file : files_of(path)) remember_input(file);
  InputFile file;
  file.role = role;
  if (role == "A" && is_sparse(path)) {
    const SparseHeader found = read_sparse_header(path);
    file.nonzeros = found.nonzeros;
    file.format = found.format;
    file.header.path = file.header.file = path;
    file.header.element = found.element;
    file.header.type = found.type;
    file.header.shape = {found.rows, found.columns};
    file.header.disk_bytes = found.bytes;
    file.header.modified_ns = found.modified_ns;
  } else {
    file.header = open_source(path);
  }
  return file;
}

std::string InputFile::modified() const { return utc_time(header.modified_ns / 1'000'000'000); }

nlohmann::ordered_json to_json(const InputFile& file) {
  nlohmann::ordered_json json{
      {"path", file.header.path}, {"shape", file.header.shape}, {"dtype", file.header.dtype_text()}};
  if (file.nonzeros) {
    json["format"] = file.format;
    json["nonzeros"] = *file.nonzeros;
  } else {
    json["fortran_order"] = file.header.fortran_order;
  }
  json["bytes"] = file.header.disk_bytes;
  json["modified"] = file.modified();
  return json;
}

OptionGroup model_options(std::vector<Option> more) {
  more.insert(
      more.begin(),
      {{"loss", 0, "NAME", Choice{loss_names()}, "softmax", "phi"},
       {"weight", 0, "W", Number{0}, "1e-4",
        "w, the same for all rows (not its square). The larger, the smaller is A x: with w times the number of rows "
        "far above 10 nothing is fitted"},
       {"weights", 0, "FILE", Text{}, "", "w, one value per row of A, in place of --weight"},
       {"normalise-b", 0, "", Switch{}, "", "divide b, counts perhaps, by its sum"},
       offset_option(),
       {"ridge", 0, "R", Number{0}, "", "add 1/2 R |x|^2 to L"},
       {"ridge-scaled", 0, "R", Number{0}, "",
        "add 1/2 R sum s_j^2 x_j^2, s_j the norm of column j, about its mean for softmax and cross-entropy: the same "
        "x_j s_j in any units of the columns"}});
  return {"Model, L(x) = phi(A x) + 1/2 |diag(w) A x|^2", std::move(more)};
}

Option offset_option() {
  return {
      "offset",
      0,
      "FILE",
      Text{},
      "",
      "o, one value per row of A: the logits are A x + o, o an exposure or a prior; -inf masks a row of softmax and "
      "cross-entropy, which has no part then"};
}

std::vector<InputFile> examine_problem(const Arguments& arguments) {
  std::vector<InputFile> files{examine("A", arguments.text("A"))};
  const std::string target = has_targets(arguments) ? "targets" : "b";
  files.push_back(examine(target, arguments.text(target)));
  if (arguments.given("weights")) files.push_back(examine("w", arguments.text("weights")));
  if (arguments.has("offset")) files.push_back(examine("offset", arguments.text("offset")));
  require_matrix(files[0].header);
  for (std::size_t k = 1; k < files.size(); ++k) check_rows_of(files[k], files[0]);
  return files;
}

bool has_targets(const Arguments& arguments) {
  return !arguments.syntax().instead_of_last.empty() && arguments.given(arguments.syntax().instead_of_last);
}

double normalise(const Communicator& communicator, Eigen::VectorXd& b, std::int64_t rows, const std::string& role,
                 const Eigen::VectorXd* offset) {
  const auto counted = [&](const Eigen::VectorXd& values) {
    return Eigen::VectorXd(offset->array().isInf().select(0.0, values));
  };
  const auto size = [](const Eigen::VectorXd& values) {
    return values.size() > 0 ? values.cwiseAbs().maxCoeff() : 0.0;
  };
  const double largest = communicator.max(offset == nullptr ? size(b) : size(counted(b)));
  if (largest > 0) b /= largest;  // the sum might overflow
  const double sum = offset == nullptr ? exact_sum(communicator, b, rows) : exact_sum(communicator, counted(b), rows);
  if (!(sum > 0))
    refuse(role + " has the sum " + plain(sum * largest, 6) + ", expected a sum > 0 to divide by (--normalise-b)");
  b /= sum;
  return sum * largest;
}

std::string normalised_text(double sum) { return "b was divided by its sum, " + plain(sum, 6) + " (--normalise-b)"; }

std::shared_ptr<const Eigen::VectorXd> load_offset(const RowMatrix& A, const Arguments& arguments) {
  if (!arguments.has("offset")) return nullptr;
  const std::string path = arguments.text("offset");
  RegressionModel model(arguments.text("loss"));
  model.offset = std::make_shared<const Eigen::VectorXd>(attnreg::load_offset(A.communicator(), path, A.partition()));
  try {
    check_offset(A, model);
  } catch (const InvalidArgument& error) {
    refuse(printable(path) + ": " + error.what());
  }
  return model.offset;
}

void require_squares(const RowMatrix& A, const Eigen::Ref<const Eigen::MatrixXd>& values, const std::string& path,
                     bool also_of_tiny) {
  const auto check = [&](Eigen::Index i, Eigen::Index j) {
    const double value = values(i, j), square = value * value;
    if (std::isfinite(square) && (square > 0 || value == 0 || !also_of_tiny)) return;
    throw InvalidArgument(printable(path) + ": row " + std::to_string(A.first_row() + i) +
                          (values.cols() > 1 ? ", column " + std::to_string(j) : "") + " is " + plain(value, 6) +
                          " (rows and columns counted from 0): double does not hold its square, of which L is made; "
                          "choose another unit");
  };
  A.communicator().agree([&] {
    for (Eigen::Index j = 0; j < values.cols(); ++j)
      for (Eigen::Index i = 0; i < values.rows(); ++i) check(i, j);
  });
}

Problem load_problem(const Communicator& communicator, const Arguments& arguments) {
  RowMatrix A = load_matrix(communicator, arguments.text("A"), storage_choice(arguments));
  Eigen::VectorXd b;
  if (!has_targets(arguments)) b = load_rows_vector(communicator, arguments.text("b"), "b", A.partition());
  auto offset = load_offset(A, arguments);
  std::optional<double> b_sum;
  if (!has_targets(arguments) && arguments.on("normalise-b"))
    b_sum = normalise(communicator, b, A.rows_global(), "b", offset.get());
  RidgeWeights w = arguments.given("weights")
                       ? RidgeWeights(load_rows_vector(communicator, arguments.text("weights"), "w", A.partition()))
                       : RidgeWeights(arguments.number("weight"));
  if (!has_targets(arguments)) require_squares(A, b, arguments.text("b"), false);
  if (arguments.given("weights")) require_squares(A, w.numbers(), arguments.text("weights"), true);
  return {std::move(A), std::move(b), std::move(w), std::move(offset), b_sum};
}

StorageChoice storage_choice(const Arguments& arguments) {
  const std::string name = arguments.text("storage");
  return name == "double"     ? StorageChoice::float64
         : name == "float"    ? StorageChoice::float32
         : name == "half"     ? StorageChoice::float16
         : name == "bfloat16" ? StorageChoice::bfloat16
                              : StorageChoice::as_file;
}

std::vector<std::string> rounding_note(const RowMatrix& matrix, Storage file_type, const std::string& role) {
  const Storage held = matrix.storage();
  const bool has_all =
      held == file_type || held == Storage::float64 || (held == Storage::float32 && file_type != Storage::float64);
  if (has_all) return {};
  const char* const bits = held == Storage::float32 ? "24" : held == Storage::float16 ? "11" : "8";
  return {role + " was rounded from " + storage_name(file_type) + " to " + storage_name(held) + ", " + bits +
          " bits (--storage " + std::string(option_name(held)) + "): all results are those of the rounded " + role};
}

double rounding_of(const Source& header, StorageChoice choice) {
  if (header.type == Storage::float16) return 0x1p-10;
  if (header.type == Storage::bfloat16) return 0x1p-7;
  return held_as(choice, header.type) == Storage::float32 ? 0x1p-23 : 0x1p-52;
}

Option scale_option(std::string_view help) {
  return {"scale", 0, "FACTOR", Choice{{"1", "1/d", "1/sqrt-d"}}, "1", help};
}

double scale_factor(const Arguments& arguments, std::int64_t d) {
  const std::string name = arguments.text("scale");
  if (name == "1") return 1;
  return name == "1/d" ? 1 / static_cast<double>(d) : 1 / std::sqrt(static_cast<double>(d));
}

Option mask_option() {
  return {"mask",
          0,
          "MASK",
          Text{},
          "none",
          "which keys a query sees, the others have no part in its softmax. none: all; causal: query i sees the keys j "
          "<= i + n2 - n1; else the name of a .npy file, n1 x n2 of 1 (sees) and 0"};
}

void check_mask_option(const Arguments& arguments) {
  const std::string mask = arguments.text("mask");
  constexpr std::array<std::string_view, 2> names{"none", "causal"};
  if (std::ranges::count(names, mask) == 0 && mask.find_first_of("./") == std::string::npos)
    throw UsageError("--mask is '" + printable(mask) + "'; expected none, causal or a file, such as ./mask.npy" +
                     suggestion(mask, names));
}

MaskSource examine_mask(const std::string& text, const std::string& role, const std::string& directory) {
  if (text == "none" || text == "causal") return {text == "causal", std::nullopt};
  return {false, examine(role, (std::filesystem::path(directory) / text).string())};
}

std::optional<AttentionMask> load_mask(const Communicator& communicator, const MaskSource& source,
                                       const RowPartition& partition, std::int64_t keys) {
  if (!source.causal && !source.file) return std::nullopt;
  AttentionMask mask;
  if (source.file)
    mask.rows = load_mask_rows(communicator, source.file->header.path, source.file->role, partition, keys);
  communicator.agree([&] {
    try {
      VisibleKeys check(mask, partition, communicator.rank(), keys);
    } catch (const InvalidArgument& error) {
      throw InvalidArgument((source.file ? printable(source.file->header.path) + ": " : "") + error.what());
    }
  });
  return mask;
}

OptionGroup attention_options(bool to_solve) {
  OptionGroup group{
      "Attention, L(X) = 1/2 |softmax(A1 X A2^T) - B|^2 + 1/2 |W o A1 X A2^T|^2 or L(X, Y) = |softmax(A1 X A2^T) A3 Y "
      "- B|^2",
      {{"queries", 0, "FILE", Text{}, "", "A1, n1 x d1, .npy"},
       {"keys", 0, "FILE", Text{}, "", "A2, n2 x d2"},
       {"values", 0, "FILE", Text{}, "", "A3, n2 x d3: one layer, with unknown Y (d3 x dv)"},
       {"target", 0, "FILE", Text{}, "", "B, n1 x n2; with --values n1 x dv"},
       mask_option(),
       {"sequences", 0, "LIST", Text{}, "",
        "a text file in place of these, one line for each sequence: queries keys target, others by name (values=FILE "
        "target=FILE weights=FILE mask=MASK), or a header line of names; relative to LIST. The sum over sequences, "
        "with "
        "the same X and Y, is minimised. --mask is for lines without mask="},
       {"form", 0, "NAME", Choice{form_names(to_solve)}, to_solve ? "auto" : "normalised",
        to_solve ? "the loss of a row of Z = A1 X A2^T; normalised is softmax, the one that goes with --values; "
                   "rescaled is rescaled-exp, 1/2 |exp(Z) - diag(exp(Z) 1) B|^2; cross-entropy: convex; log-odds: "
                   "least squares of log B; auto: cross-entropy where log-odds are the start, else normalised"
                 : "the loss of a row of Z = A1 X A2^T; normalised is softmax, the one that goes with --values; "
                   "rescaled is rescaled-exp, 1/2 |exp(Z) - diag(exp(Z) 1) B|^2; cross-entropy: convex"}}};
  if (to_solve)
    group.options.insert(group.options.begin() + 4, {"weights", 0, "FILE", Text{}, "", "W, n1 x n2; default: 0"});
  return group;
}

void check_attention_options(const Arguments& arguments) {
  for (const auto name : kFiles) arguments.exclude("sequences", name);
  if (!arguments.given("sequences"))
    for (const auto name : {"queries", "keys", "target"}) arguments.require(name);
  arguments.exclude("values", "weights");
  check_mask_option(arguments);
  if (arguments.given("values") && form_loss(arguments) != "softmax")
    throw UsageError("--values goes with --form normalised only");
}

std::string form_loss(const Arguments& arguments) {
  const std::string form = arguments.text("form");
  return form == "normalised" || form == "auto" ? "softmax" : form == "rescaled" ? "rescaled-exp" : form;
}

std::vector<InputFile> list_of(const std::vector<SequenceFiles>& sequences) {
  std::vector<InputFile> files;
  const auto in = [](const std::optional<InputFile>& file) { return file ? &*file : nullptr; };
  for (const auto& sequence : sequences)
    for (const InputFile* file : {&sequence.queries, &sequence.keys, in(sequence.values), &sequence.target,
                                  in(sequence.weights), in(sequence.mask.file)})
      if (file != nullptr) files.push_back(*file);
  return files;
}

double attention_bytes(const std::vector<SequenceFiles>& sequences, int ranks, int threads, std::int64_t dense_limit) {
  constexpr double kBlocks = 8;  // of rows of Z that a thread holds at once
  double numbers = 0, largest_block = 0;
  const auto size = [](const InputFile& file) { return static_cast<double>(file.header.elements()); };
  for (const auto& sequence : sequences) {
    const double rows = size(sequence.queries) + size(sequence.target) +
                        (sequence.weights ? size(*sequence.weights) : 0) +
                        (sequence.mask.file ? size(*sequence.mask.file) / 8 : 0);
    numbers += rows / ranks + 2 * size(sequence.keys) + (sequence.values ? size(*sequence.values) : 0);
    const std::int64_t n2 = rows_of(sequence.keys);
    largest_block = std::max(largest_block, static_cast<double>(n2 * tile_rows(std::max<std::int64_t>(n2, 1))));
  }
  const auto& first = sequences[0];
  const auto d1 = static_cast<double>(first.queries.header.columns()),
             d2 = static_cast<double>(first.keys.header.columns());
  const double Y =
      first.values ? static_cast<double>(first.values->header.columns() * first.target.header.columns()) : 0;
  const double D = d1 * d2 + Y;
  const double model = D <= static_cast<double>(dense_limit) ? 3 * D * D + threads * d1 * d1 * d2 * d2 / 4 : 0;
  return 8 * (numbers + kBlocks * threads * largest_block + model);
}

std::vector<RowPartition> dealt(const std::vector<SequenceFiles>& files, int ranks) {
  std::vector<std::pair<std::int64_t, std::int64_t>> shapes;
  for (const auto& file : files) shapes.emplace_back(rows_of(file.queries), rows_of(file.keys));
  return deal_sequences(shapes, ranks);
}

std::vector<AttentionSequence> load_sequences(const Communicator& communicator, const std::vector<SequenceFiles>& files,
                                              const std::vector<RowPartition>& partitions) {
  std::vector<AttentionSequence> sequences;
  for (const auto& file : files) {
    const RowPartition partition = partitions.empty()
                                       ? RowPartition::in_blocks(rows_of(file.queries), 1, communicator.size())
                                       : partitions[sequences.size()];
    AttentionSequence& sequence = sequences.emplace_back(load_input(communicator, file, partition));
    const std::int64_t n2 = sequence.keys.rows();
    if (file.values) sequence.values = load_replicated_matrix(communicator, file.values->header.path);
    sequence.target =
        load_part(communicator, file.target, sequence.partition, file.values ? file.target.header.columns() : n2);
    if (file.weights) sequence.weights = load_part(communicator, *file.weights, sequence.partition, n2);
  }
  return sequences;
}

std::vector<AttentionSequence> load_inputs(const Communicator& communicator, const std::vector<SequenceFiles>& files) {
  const auto partitions = dealt(files, communicator.size());
  std::vector<AttentionSequence> sequences;
  for (const auto& file : files) sequences.push_back(load_input(communicator, file, partitions[sequences.size()]));
  return sequences;
}

}  // namespace attnreg::app
