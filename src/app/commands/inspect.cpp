#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "app/options/commands.hpp"
#include "app/report/json.hpp"
#include "app/report/text.hpp"
#include "app/run/problem.hpp"
#include "attnreg/files.hpp"
#include "attnreg/row_partition.hpp"
#include "errors/printable.hpp"
#include "files/source.hpp"
#include "files/sparse_file.hpp"
#include "ranks/activity.hpp"

namespace attnreg::app {

namespace {

constexpr std::string_view kInspectEpilogue = R"(Example:
  attnreg inspect A.npy

Exit code 3: the file is not one that attnreg reads, or has values that are not finite.
)";

const Syntax kInspectSyntax{
    "inspect",
    "Say what is in a matrix or vector: shape, type, range of the values, and whether all are finite.",
    {{"FILE", "matrix or vector; sparse matrix"}},
    {{"Output", {json_option("print JSON"), trust_option()}}, {"Computing", {watchdog_option(), progress_option()}}},
    kInspectEpilogue};

constexpr std::int64_t kNowhere = std::numeric_limits<std::int64_t>::max();

/// What one reading of the values tells. Minimum, maximum and sum are of the finite values.
struct Scan {
  std::int64_t not_finite = 0;
  std::int64_t first_not_finite = kNowhere;  ///< position in row-major order
  double minimum = std::numeric_limits<double>::infinity();
  double maximum = -std::numeric_limits<double>::infinity();
  double sum = 0;
  std::int64_t longest_row = 0;  ///< of a sparse matrix: entries of the row with the most
  std::int64_t empty_rows = 0;   ///< of a sparse matrix

  void add(std::span<const double> values, std::int64_t first_position) {
    for (std::size_t i = 0; i < values.size(); ++i) {
      if (!std::isfinite(values[i])) {
        ++not_finite;
        first_not_finite = std::min(first_not_finite, first_position + static_cast<std::int64_t>(i));
        continue;
      }
      minimum = std::min(minimum, values[i]);
      maximum = std::max(maximum, values[i]);
      sum += values[i];
    }
  }

  /// Collective. Of all ranks.
  void reduce(const Communicator& communicator) {
    for (auto* count : {&not_finite, &empty_rows}) *count = communicator.sum(*count);
    first_not_finite = communicator.min(first_not_finite);
    minimum = -communicator.max(-minimum);
    maximum = communicator.max(maximum);
    sum = communicator.sum(sum);
    longest_row = communicator.max(longest_row);
  }
};

/// Collective. Every rank reads its rows, a block at a time.
Scan scan(const Communicator& communicator, const Source& header) {
  const std::int64_t rows = header.shape[0], columns = header.columns();
  Scan found;
  if (header.elements() == 0) return found;  // the other extent may be any number
  const RowPartition partition = reading_partition(header, rows, communicator.size());
  communicator.agree([&] {
    const std::int64_t end = partition.end(communicator.rank());
    const std::int64_t block_rows = std::max<std::int64_t>(1, (std::int64_t{1} << 20) / columns);
    std::vector<double> block;
    const InWork reading("reading", "bytes", bytes_of_rows(header, partition.rows_local(communicator.rank())));
    RowReader reader(header);
    for (std::int64_t row = partition.begin(communicator.rank()); row < end; row += block_rows) {
      const std::int64_t count = std::min(block_rows, end - row);
      block.resize(static_cast<std::size_t>(count * columns));
      reader.read(row, count, std::span(block));
      found.add(block, row * columns);
    }
  });
  found.reduce(communicator);
  return found;
}

/// Collective. Every rank loads its rows. Values that are not finite, and all that is wrong with the rows, end it.
Scan scan_sparse(const Communicator& communicator, const std::string& path) {
  const CsrRows rows = load_sparse(communicator, path, StorageChoice::as_file).rows;
  Scan found;
  found.add(rows.is_single ? std::vector<double>(rows.singles.begin(), rows.singles.end()) : rows.values, 0);
  for (std::size_t i = 1; i < rows.offsets.size(); ++i) {
    const std::int64_t entries = rows.offsets[i] - rows.offsets[i - 1];
    found.longest_row = std::max(found.longest_row, entries);
    found.empty_rows += entries == 0;
  }
  found.reduce(communicator);
  return found;
}

std::string place(const Source& header, std::int64_t position) {
  if (header.shape.size() < 2) return "row " + std::to_string(position);
  return "row " + std::to_string(position / header.shape[1]) + ", column " + std::to_string(position % header.shape[1]);
}

std::string human_text(const InputFile& file, const Scan& found) {
  const Source& header = file.header;
  const auto line = [](const char* label, const std::string& text) { return padded(label, 10) + text + "\n"; };
  std::string text = line("file", printable(header.path)) + line("shape", header.shape_text()) +
                     line("type", header.dtype_text() + ", held as " + storage_name(header.type));
  if (file.nonzeros)
    text += line("sparse", file.format + ", " + std::to_string(*file.nonzeros) + " entries, at most " +
                               std::to_string(found.longest_row) + " in a row; " + std::to_string(found.empty_rows) +
                               " empty rows");
  else
    text += line("order", header.fortran_order ? "Fortran (columns)" : "C (rows)");
  text += line("bytes", std::to_string(header.disk_bytes)) + line("modified", file.modified());
  if (found.minimum <= found.maximum)
    text += line("minimum", exact(found.minimum)) + line("maximum", exact(found.maximum));
  if (header.shape.size() == 1) text += line("sum", std::isfinite(found.sum) ? exact(found.sum) : "overflows");
  return text + line("finite", found.not_finite == 0 ? "yes"
                                                     : "NO: " + std::to_string(found.not_finite) +
                                                           " values are not (counted from 0, the first is at " +
                                                           place(header, found.first_not_finite) + ")");
}

std::string inspect_json(const Arguments& arguments, const InputFile& file, const Scan& found) {
  auto json = document_of("inspect", arguments);
  json.update(to_json(file));
  json["minimum"] = found.minimum;
  json["maximum"] = found.maximum;
  if (file.header.shape.size() == 1) json["sum"] = found.sum;
  if (file.nonzeros) {
    json["longest_row"] = found.longest_row;
    json["empty_rows"] = found.empty_rows;
  }
  json["not_finite"] = found.not_finite;
  return json_text(json);
}

ExitCode inspect(const Communicator& communicator, const Arguments& arguments) {
  InputFile file;
  communicator.agree([&] {
    file = examine("A", arguments.text("FILE"));
    if (file.header.shape.empty() || file.header.shape.size() > 2)
      throw InvalidArgument(printable(file.header.path) + ": shape " + file.header.shape_text() +
                            ", expected one or two extents");
  });
  const Scan found = file.nonzeros ? scan_sparse(communicator, file.header.path) : scan(communicator, file.header);
  print_result(communicator,
               arguments.on("json") ? inspect_json(arguments, file, found) : to_width(human_text(file, found)));
  return found.not_finite == 0 ? ExitCode::converged : ExitCode::bad_input;
}

}  // namespace

Command inspect_command() { return {kInspectSyntax, inspect}; }

}  // namespace attnreg::app
