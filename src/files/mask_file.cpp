#include "files/mask_file.hpp"

#include <algorithm>
#include <string>
#include <vector>

#include "errors/printable.hpp"
#include "files/input_file.hpp"
#include "files/source.hpp"

namespace attnreg {

namespace {

std::uint8_t visibility(const std::string& path, double value, std::int64_t row, std::int64_t column) {
  if (value != 0 && value != 1)
    refuse_file(path, "row " + std::to_string(row) + ", column " + std::to_string(column) + " is " + text_of(value) +
                          "; a mask has 1 where a query sees a key, else 0");
  return value == 1 ? 1 : 0;
}

}  // namespace

MaskRows load_mask_rows(const Communicator& communicator, const std::string& path, const std::string& role,
                        const RowPartition& partition, std::int64_t columns) {
  constexpr std::int64_t elements_per_read = std::int64_t{1} << 17;
  Source header;
  communicator.agree([&] {
    header = open_source(path);
    const bool matrix = !header.shape.empty() && header.shape.size() <= 2;
    if (!matrix || header.shape[0] != partition.rows_global() || header.columns() != columns)
      refuse_file(path, printable(role) + " has shape " + header.shape_text() + ", expected (" +
                            std::to_string(partition.rows_global()) + ", " + std::to_string(columns) +
                            "), queries x keys");
  });
  require_same_file(communicator, path, "shape ", header.shape_text() + " of " + header.dtype_text());
  const std::int64_t first = partition.begin(communicator.rank());
  MaskRows rows;
  communicator.agree([&] {
    rows.resize(partition.rows_local(communicator.rank()), columns);
    if (rows.size() == 0) return;
    const std::int64_t at_once = std::max<std::int64_t>(1, elements_per_read / columns);
    std::vector<double> values;
    RowReader reader(header);
    for (std::int64_t row = 0; row < rows.rows(); row += at_once) {
      const std::int64_t count = std::min<std::int64_t>(at_once, rows.rows() - row);
      values.resize(static_cast<std::size_t>(count * columns));
      reader.read(first + row, count, std::span(values));
      for (std::int64_t k = 0; k < count * columns; ++k)
        rows.data()[row * columns + k] =
            visibility(path, values[static_cast<std::size_t>(k)], first + row + k / columns, k % columns);
    }
  });
  return rows;
}

}  // namespace attnreg
