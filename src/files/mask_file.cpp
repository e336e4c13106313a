#include "files/mask_file.hpp"

#include <bit>
#include <string>
#include <vector>

#include "errors/printable.hpp"
#include "files/input_file.hpp"

namespace attnreg {

namespace {

bool is_number(const NpyArray& header) {
  const std::int64_t bytes = header.item_bytes;
  switch (header.kind) {
    case 'b': return bytes == 1;
    case 'i':
    case 'u': return bytes == 1 || bytes == 2 || bytes == 4 || bytes == 8;
    case 'f': return bytes == 4 || bytes == 8;
    default: return false;
  }
}

double number_at(const unsigned char* bytes, const NpyArray& header) {
  std::uint64_t bits = 0;
  const std::int64_t size = header.item_bytes;
  for (std::int64_t k = 0; k < size; ++k)
    bits |= static_cast<std::uint64_t>(bytes[header.big_endian ? size - 1 - k : k]) << (8 * k);
  if (header.kind == 'f')
    return size == 4 ? std::bit_cast<float>(static_cast<std::uint32_t>(bits)) : std::bit_cast<double>(bits);
  if (header.kind != 'i') return static_cast<double>(bits);
  const auto unused = static_cast<int>(64 - 8 * size);  // carries the sign
  return static_cast<double>(static_cast<std::int64_t>(bits << unused) >> unused);
}

std::uint8_t visibility(const unsigned char* bytes, const NpyArray& header, std::int64_t row, std::int64_t column) {
  const double value = number_at(bytes, header);
  if (value != 0 && value != 1)
    refuse_file(header.path, "row " + std::to_string(row) + ", column " + std::to_string(column) + " is " +
                                 text_of(value) + "; a mask has 1 where a query sees a key, else 0");
  return value == 1 ? 1 : 0;
}

}  // namespace

NpyArray read_mask_header(const std::string& path) {
  NpyArray header = read_npy_array(path);
  if (!is_number(header))
    refuse_file(path, "found dtype " + printable(header.dtype, 40) + ", expected bool, integers, f4 or f8");
  return header;
}

MaskRows load_mask_rows(const Communicator& communicator, const std::string& path, const std::string& role,
                        const RowPartition& partition, std::int64_t columns) {
  NpyArray header;
  communicator.agree([&] {
    header = read_mask_header(path);
    const bool matrix = !header.shape.empty() && header.shape.size() <= 2;
    if (!matrix || header.shape[0] != partition.rows_global() || header.columns() != columns)
      refuse_file(path, printable(role) + " has shape " + header.shape_text() + ", expected (" +
                            std::to_string(partition.rows_global()) + ", " + std::to_string(columns) +
                            "), queries x keys");
  });
  require_same_file(communicator, path, "shape ", header.shape_text() + " of " + header.dtype);
  const std::int64_t first = partition.begin(communicator.rank());
  MaskRows rows;
  communicator.agree([&] {
    rows.resize(partition.rows_local(communicator.rank()), columns);
    const InputFile file(header.file);
    file.check_unchanged(header.file_bytes, header.modified_ns);
    const bool by_columns = header.fortran_order && columns > 1;
    const std::int64_t lines = by_columns ? columns : rows.rows(), length = by_columns ? rows.rows() : columns;
    std::vector<unsigned char> bytes(static_cast<std::size_t>(length * header.item_bytes));
    for (std::int64_t line = 0; line < lines && !bytes.empty(); ++line) {
      const std::int64_t position = by_columns ? line * header.shape[0] + first : (first + line) * columns;
      file.read(header.data_offset + position * header.item_bytes, bytes.data(), std::ssize(bytes));
      for (std::int64_t k = 0; k < length; ++k) {
        const std::int64_t row = by_columns ? k : line, column = by_columns ? line : k;
        rows(row, column) = visibility(bytes.data() + k * header.item_bytes, header, first + row, column);
      }
    }
    file.check_unchanged(header.file_bytes, header.modified_ns);
  });
  return rows;
}

}  // namespace attnreg
