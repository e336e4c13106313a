#pragma once

#include <Eigen/Core>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <vector>

#include "app/options/options.hpp"
#include "attnreg/attention_regression.hpp"
#include "attnreg/files.hpp"
#include "attnreg/row_matrix.hpp"
#include "files/source.hpp"

namespace attnreg::app {

/// What is known of an input file before it is read.
struct InputFile {
  std::string role;                      ///< "A"
  Source header;                         ///< of a sparse matrix: name, shape, type
  std::optional<std::int64_t> nonzeros;  ///< entries of a sparse matrix
  std::string format;                    ///< of a sparse matrix, "csr"

  std::string modified() const;  ///< ISO 8601, UTC
};

/// Local. Opens the file and reads its header; throws `InvalidArgument` (this rank). Role A may be a sparse matrix.
InputFile examine(const std::string& role, const std::string& path);
nlohmann::ordered_json to_json(const InputFile& file);

/// A regression problem: A with b and w of this rank's rows; no b where there are several targets.
struct Problem {
  RowMatrix A;
  Eigen::VectorXd b;
  RidgeWeights w;
  std::shared_ptr<const Eigen::VectorXd> offset{};  ///< as of `RegressionModel`
  std::optional<double> b_sum{};                    ///< with --normalise-b: what b was divided by
};

/// The options --loss, --weight, --weights, --normalise-b, --ridge, --ridge-scaled and --offset, and what a command
/// adds to them.
OptionGroup model_options(std::vector<Option> more = {});
Option offset_option();

/// Whether the command line has several targets (--targets) in place of b.
bool has_targets(const Arguments& arguments);

/// Local. The files that the arguments A, b, --weights and --offset name, looked at: they exist, A is a matrix, and b,
/// w and o have one value per row of A, the targets one row. Cheap, so that a wrong b is found before A is read. Throws
/// `InvalidArgument` (this rank).
std::vector<InputFile> examine_problem(const Arguments& arguments);

/// Collective. Divides a vector of `rows` values, one per row of A, by its sum, which does not depend on the ranks, and
/// returns that: of the rows that the offset, if there is one, does not mask. role: "b". `InvalidArgument` on all ranks
/// unless it is above 0.
double normalise(const Communicator& communicator, Eigen::VectorXd& b, std::int64_t rows, const std::string& role,
                 const Eigen::VectorXd* offset);
/// Local. A note on that.
std::string normalised_text(double sum);

/// Collective. The offsets that --offset names, if it is given, as the loss takes them; else none. Throws on all ranks.
std::shared_ptr<const Eigen::VectorXd> load_offset(const RowMatrix& A, const Arguments& arguments);

/// Collective, one agreement. Throws `InvalidArgument` on all ranks, with file, row, column if there are several, and
/// value, where the square of a value overflows, or, if so asked, underflows. values: of this rank's rows of A.
void require_squares(const RowMatrix& A, const Eigen::Ref<const Eigen::MatrixXd>& values, const std::string& path,
                     bool also_of_tiny);

/// Collective. Loads the files. Throws on all ranks.
Problem load_problem(const Communicator& communicator, const Arguments& arguments);

/// The value of --storage.
StorageChoice storage_choice(const Arguments& arguments);
/// Local. A note, where a matrix is held in a type that does not have all numbers of its file, which are of
/// `file_type`; else none. role: "A".
std::vector<std::string> rounding_note(const RowMatrix& matrix, Storage file_type, const std::string& role);
/// Relative, of the numbers of a file in the type in which they are held.
double rounding_of(const Source& header, StorageChoice choice);

/// The option --scale of attention logits, and its number for inner products of d terms.
Option scale_option(std::string_view help);
double scale_factor(const Arguments& arguments, std::int64_t d);

/// Which keys a query sees, as the command line or a list has it: `causal`, the rows of a file, or (neither) all.
struct MaskSource {
  bool causal = false;
  std::optional<InputFile> file;
};

/// The option --mask.
Option mask_option();
/// Throws `UsageError` if --mask is neither none, causal nor the name of a file, with '.' or '/' in it.
void check_mask_option(const Arguments& arguments);
/// Local. none, causal, or a file, which is looked at; `directory`: what its name is relative to. Throws
/// `InvalidArgument` (this rank).
MaskSource examine_mask(const std::string& text, const std::string& role, const std::string& directory = "");
/// Collective. Of queries with this partition and so many keys. Throws on all ranks, also if a query sees no key.
std::optional<AttentionMask> load_mask(const Communicator& communicator, const MaskSource& source,
                                       const RowPartition& partition, std::int64_t keys);

/// --queries, --keys, --values, --target, --weights, --mask or --sequences, --form: the data of an attention
/// regression. `weights_too`: with --weights, which other commands have for themselves.
OptionGroup attention_options(bool to_solve);

/// Throws `UsageError` for options that do not go together.
void check_attention_options(const Arguments& arguments);

/// The loss that --form names.
std::string form_loss(const Arguments& arguments);

/// The files of one sequence, looked at.
struct SequenceFiles {
  InputFile queries, keys, target;
  std::optional<InputFile> values, weights;
  MaskSource mask;
};

/// The same files in one list. Local.
std::vector<InputFile> list_of(const std::vector<SequenceFiles>& sequences);

/// Local. Bytes that a rank takes at least: the data, blocks of rows of Z and, up to `dense_limit` unknowns, the model.
double attention_bytes(const std::vector<SequenceFiles>& sequences, int ranks, int threads, std::int64_t dense_limit);

/// Local. Whole sequences for the ranks: `deal_sequences`.
std::vector<RowPartition> dealt(const std::vector<SequenceFiles>& files, int ranks);

/// Collective. Loads them, with these partitions, or without any with rows spread evenly. Throws on all ranks.
std::vector<AttentionSequence> load_sequences(const Communicator& communicator, const std::vector<SequenceFiles>& files,
                                              const std::vector<RowPartition>& partitions = {});
/// Collective. Loads queries, keys and masks of `dealt` sequences; targets are 0 x 0.
std::vector<AttentionSequence> load_inputs(const Communicator& communicator, const std::vector<SequenceFiles>& files);

}  // namespace attnreg::app
