#include <algorithm>
#include <cmath>
#include <optional>
#include <vector>

#include "app/options/commands.hpp"
#include "app/report/json.hpp"
#include "app/report/text.hpp"
#include "app/run/problem.hpp"
#include "attnreg/files.hpp"
#include "errors/printable.hpp"
#include "files/byte_order.hpp"
#include "files/npz_writer.hpp"
#include "files/output_file.hpp"
#include "files/source.hpp"
#include "files/source_name.hpp"
#include "files/sparse_file.hpp"
#include "ranks/activity.hpp"

namespace attnreg::app {

namespace {

constexpr std::string_view kConvertEpilogue = R"(Examples:
  attnreg convert model.safetensors:layer.2.q Q.npy
  attnreg convert A.npz 'A.%05d.npy' --shards 16
  attnreg convert 'A.*.npy' A.npz --sparse

OUT is NAME.npy, NAME.npz or NAME.npz:ARRAY, or with %05d in its name the shards of a matrix.
)";

const Syntax kConvertSyntax{
    "convert",
    "Write a matrix or vector in another format: .npy, .npz (dense or csr), or several .npy files.",
    {{"IN", "matrix or vector, dense or sparse"}, {"OUT", "file to write; its name says the format"}},
    {{"Output",
      {{"dtype", 0, "TYPE", Choice{{"file", "float32", "float64"}}, "file",
        "type of the values; file: float32 if it has all values of the type of IN, else float64"},
       {"sparse", 0, "", Switch{}, "", "write csr to .npz, without the zeros; default where IN is sparse"},
       {"dense", 0, "", Switch{}, "", "write zeros too; default where IN is dense"},
       {"shards", 0, "K", Integer{1, 100000}, "8", "files to write, of equally many rows, where OUT has %05d"},
       json_option("print what was written as JSON"),
       force_option(),
       trust_option()}},
     {"Computing", {watchdog_option(), progress_option()}}},
    kConvertEpilogue};

/// What is read: rows of a dense array, a block at a time, or sparse rows, which this rank has.
class Input {
 public:
  Input(const Communicator& communicator, const InputFile& file, StorageChoice choice) : file_(file.header) {
    if (!file.nonzeros) return;
    SparseRows loaded = load_sparse(communicator, file.header.path, choice);
    partition_ = std::move(loaded.partition);
    sparse_ = std::move(loaded.rows);
  }

  const std::string& path() const { return file_.path; }
  bool is_sparse() const { return sparse_.has_value(); }
  const std::vector<std::int64_t>& shape() const { return file_.shape; }
  std::int64_t rows() const { return file_.shape[0]; }
  std::int64_t columns() const { return file_.columns(); }
  CsrRows& sparse() { return *sparse_; }
  double bytes_of(std::int64_t rows) const { return bytes_of_rows(file_, rows); }

  /// Which rows of [begin, end) this rank deals with.
  RowPartition shares(const Communicator& communicator, std::int64_t begin, std::int64_t end) const {
    if (!partition_) return reading_partition(file_, end - begin, communicator.size());
    std::vector<std::int64_t> first;
    for (int k = 0; k < communicator.size(); ++k) first.push_back(std::clamp(partition_->begin(k), begin, end) - begin);
    first.push_back(end - begin);
    return RowPartition(std::move(first));
  }

  /// Local. Some rows of this rank; of a dense array any rows.
  void read(int rank, std::int64_t first, std::int64_t rows, std::span<double> out) {
    if (!sparse_) {
      if (!reader_) reader_.emplace(file_);
      return reader_->read(first, rows, out);
    }
    std::ranges::fill(out, 0.0);
    for (std::int64_t i = 0; i < rows; ++i) {
      const auto row = static_cast<std::size_t>(first + i - partition_->begin(rank));
      for (std::int64_t e = sparse_->offsets[row]; e < sparse_->offsets[row + 1]; ++e) {
        const auto k = static_cast<std::size_t>(e);
        out[static_cast<std::size_t>(i * columns() + sparse_->indices[k])] =
            sparse_->is_single ? sparse_->singles[k] : sparse_->values[k];
      }
    }
  }

 private:
  Source file_;
  std::optional<RowPartition> partition_;
  std::optional<CsrRows> sparse_;
  std::optional<RowReader> reader_;
};

std::int64_t block_rows(std::int64_t columns) {
  return std::max<std::int64_t>(1, (std::int64_t{1} << 18) / columns);
}

/// Throws for a finite value that float does not have, or not with all its digits.
void require_float(const Input& input, std::int64_t first, std::span<const double> rows) {
  const auto lost = std::ranges::find_if(
      rows, [](double value) { return std::isfinite(value) && !std::isfinite(converted<float>(value)); });
  if (lost == rows.end()) return;
  const std::int64_t at = lost - rows.begin();
  throw InvalidArgument(printable(input.path()) + ": row " + std::to_string(first + at / input.columns()) +
                        ", column " + std::to_string(at % input.columns()) + " is " + plain(*lost, 6) +
                        " (counted from 0), which float32 does not hold; use --dtype float64");
}

/// Collective. Rows [begin, end), a block at a time; `write(first of the block, counted from begin, values)` of this
/// rank's.
template <class Write>
void each_block(const Communicator& communicator, Input& input, Storage type, std::int64_t begin, std::int64_t end,
                Write&& write) {
  if (input.columns() == 0) return;  // of any number of rows
  const RowPartition shares = input.shares(communicator, begin, end);
  communicator.agree([&] {
    std::vector<double> block;
    const std::int64_t last = shares.end(communicator.rank()), at_once = block_rows(input.columns());
    const InWork reading("reading", "bytes", input.bytes_of(shares.rows_local(communicator.rank())));
    for (std::int64_t row = shares.begin(communicator.rank()); row < last; row += at_once) {
      const std::int64_t count = std::min(at_once, last - row);
      block.resize(static_cast<std::size_t>(count * input.columns()));
      input.read(communicator.rank(), begin + row, count, std::span(block));
      if (type == Storage::float32) require_float(input, begin + row, block);
      write(row, std::span<const double>(block));
    }
  });
}

/// Collective.
void write_npy_rows(const Communicator& communicator, Input& input, const std::string& path, Storage type,
                    std::int64_t begin, std::int64_t end) {
  std::vector<std::int64_t> shape = input.shape();
  shape[0] = end - begin;
  NpyWriter writer(communicator, path, type, shape);
  each_block(communicator, input, type, begin, end,
             [&](std::int64_t first, std::span<const double> rows) { writer.write_rows(first, rows); });
  writer.commit();
}

/// Collective.
void write_member(const Communicator& communicator, Input& input, const std::string& path, const std::string& name,
                  Storage type) {
  const std::int64_t item = item_bytes(type);
  NpzWriter archive(communicator, path, {ArrayFormat{name, npy_dtype(type), item, input.shape()}});
  each_block(communicator, input, type, 0, input.rows(), [&](std::int64_t first, std::span<const double> rows) {
    archive.write(0, first * input.columns() * item,
                  type == Storage::float32 ? little_endian(std::vector<float>(rows.begin(), rows.end()))
                                           : little_endian(std::vector<double>(rows.begin(), rows.end())));
  });
  archive.commit();
}

/// Collective. A dense matrix without its zeros, in double or float.
CsrRows without_zeros(const Communicator& communicator, Input& input, bool single) {
  CsrRows sparse;
  sparse.columns = input.columns();
  sparse.is_single = single;
  each_block(communicator, input, single ? Storage::float32 : Storage::float64, 0, input.rows(),
             [&](std::int64_t, std::span<const double> rows) {
               for (std::size_t k = 0; k < rows.size(); ++k) {
                 const auto column = static_cast<std::int64_t>(k) % input.columns();
                 if (rows[k] != 0) {
                   sparse.indices.push_back(static_cast<std::int32_t>(column));
                   single ? sparse.singles.push_back(static_cast<float>(rows[k])) : sparse.values.push_back(rows[k]);
                 }
                 if (column + 1 == input.columns()) sparse.offsets.push_back(std::ssize(sparse.indices));
               }
             });
  return sparse;
}

/// Collective.
void write_csr(const Communicator& communicator, Input& input, const std::string& path, bool single) {
  const RowPartition shares = input.shares(communicator, 0, input.rows());
  CsrRows rows = input.is_sparse() ? std::move(input.sparse()) : without_zeros(communicator, input, single);
  write_sparse(communicator, path, "csr", shares.begin(communicator.rank()), input.rows(), std::move(rows));
}

/// The file OUT, and the array in it.
struct Output {
  std::string file, member;
  bool is_archive = false, is_pattern = false;
};

Output output_of(const std::string& text) {
  Output output{text, {}, false, false};
  const std::size_t colon = text.rfind(".npz:");
  if (colon != std::string::npos && colon + 5 < text.size()) {
    output.file = text.substr(0, colon + 4);
    output.member = text.substr(colon + 5);
    if (output.member.find('/') != std::string::npos)
      throw UsageError("OUT is '" + printable(text) + "': a '/' in the name of an array");
  }
  output.is_archive = output.file.ends_with(".npz");
  output.is_pattern = is_numbered(output.file);
  if (!output.is_archive && !output.file.ends_with(".npy"))
    throw UsageError("OUT is '" + printable(text) + "', expected a name that ends with .npy or .npz");
  if (output.is_archive && output.is_pattern)
    throw UsageError("OUT is '" + printable(text) + "': shards are .npy files");
  if (!output.is_pattern && output.file.find('*') != std::string::npos)
    throw UsageError("OUT is '" + printable(text) + "': write %05d in place of '*'");
  return output;
}

/// Local. Files of the pattern that would stand beside those that are written.
void check_shards(const std::vector<std::string>& names, const std::string& pattern, bool replaces) {
  for (const auto& name : names) check_output(name, replaces);
  for (const auto& other : files_of(pattern))
    if (std::ranges::find(names, other) == names.end())
      throw OutputError("cannot write " + printable(pattern) + ": " + printable(other) +
                        " would stay beside the new files; remove it");
}

ExitCode convert(const Communicator& communicator, const Arguments& arguments) {
  const Output output = output_of(arguments.text("OUT"));
  arguments.exclude("sparse", "dense");
  if (arguments.given("shards") && !output.is_pattern) throw UsageError("--shards needs %05d in the name OUT");
  InputFile file;
  std::vector<std::string> names{output.file};
  communicator.agree([&] {
    file = examine("A", arguments.text("IN"));
    const auto& shape = file.header.shape;
    if (shape.empty() || shape.size() > 2)
      throw InvalidArgument(printable(file.header.path) + ": found shape " + file.header.shape_text() +
                            ", expected (n,) or (n, d); name a part of it, IN[3]");
    if (output.is_pattern)
      names = numbered(output.file,
                       std::min<std::int64_t>(arguments.integer("shards"), std::max<std::int64_t>(shape[0], 1)));
    if (!communicator.is_root()) return;
    if (output.is_pattern)
      check_shards(names, output.file, arguments.on("force"));
    else
      check_output(output.file, arguments.on("force"));
  });
  require_same_file(communicator, file.header.path, "shape ",
                    file.header.shape_text() + " of " + file.header.dtype_text());
  const bool sparse =
      arguments.on("sparse") || (file.nonzeros && output.is_archive && !arguments.on("dense") && output.member.empty());
  if (sparse && (!output.is_archive || !output.member.empty())) throw UsageError("--sparse writes csr, to a file .npz");
  if (sparse && (file.header.shape.size() != 2 || file.header.elements() == 0))
    throw InvalidArgument(printable(file.header.path) + ": found shape " + file.header.shape_text() +
                              ", expected a matrix of at least one row and column to write as csr",
                          Error::Scope::all_ranks);
  const std::string dtype = arguments.text("dtype");
  const bool single = dtype == "file" ? file.header.type != Storage::float64 : dtype == "float32";
  const Storage type = single ? Storage::float32 : Storage::float64;

  Input input(communicator, file, single ? StorageChoice::float32 : StorageChoice::float64);
  const std::int64_t n = input.rows(), count = std::ssize(names);
  if (sparse) {
    write_csr(communicator, input, output.file, single);
  } else if (output.is_archive) {
    write_member(communicator, input, output.file, output.member.empty() ? "arr_0" : output.member, type);
  } else {
    for (std::int64_t k = 0; k < count; ++k)  // n * k might overflow
      write_npy_rows(communicator, input, names[static_cast<std::size_t>(k)], type,
                     n / count * k + std::min(k, n % count), n / count * (k + 1) + std::min(k + 1, n % count));
  }
  auto json = document_of("convert", arguments);
  json.update({{"output", arguments.text("OUT")},
               {"shape", file.header.shape},
               {"dtype", npy_dtype(type)},
               {"format", sparse              ? "csr"
                          : output.is_archive ? "npz"
                                              : "npy"},
               {"files", count}});
  print_result(communicator, arguments.on("json")
                                 ? json_text(json)
                                 : to_width(printable(arguments.text("OUT")) + ": " + file.header.shape_text() +
                                            " of " + npy_dtype(type) + (sparse ? ", csr" : "") +
                                            (output.is_pattern ? ", " + counted(count, "file") : "") + "\n"));
  return ExitCode::converged;
}

}  // namespace

Command convert_command() { return {kConvertSyntax, convert}; }

}  // namespace attnreg::app
