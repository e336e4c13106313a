#include "attnreg/row_storage.hpp"

#include <algorithm>
#include <limits>
#include <string>

namespace attnreg {
namespace {

[[noreturn]] void fail(const std::string& problem) { throw InvalidArgument("sparse rows: " + problem); }

template <class Scalar>
struct Entry {
  std::int32_t column;
  Scalar value;
};

bool is_increasing(const std::int32_t* columns, std::int64_t entries) {
  bool increasing = true;  // without an early end the loop is a vector loop; rows are short
  for (std::int64_t k = 1; k < entries; ++k) increasing &= columns[k - 1] < columns[k];
  return increasing;
}

template <class Scalar>
void sort_as(CsrRows& rows, std::vector<Scalar>& values) {
  std::vector<Entry<Scalar>> row;
  std::int64_t begin = 0, kept = 0;
  for (std::size_t i = 1; i < rows.offsets.size(); ++i) {
    const std::int64_t end = rows.offsets[i];
    const auto from = static_cast<std::size_t>(begin), to = static_cast<std::size_t>(kept);
    const auto count = static_cast<std::size_t>(end - begin);
    if (is_increasing(rows.indices.data() + begin, end - begin)) {
      if (kept != begin) {
        std::copy_n(rows.indices.data() + from, count, rows.indices.data() + to);
        std::copy_n(values.data() + from, count, values.data() + to);
      }
      kept += end - begin;
    } else {
      row.clear();
      for (std::size_t k = from; k < from + count; ++k) row.push_back({rows.indices[k], values[k]});
      std::ranges::stable_sort(row, {}, &Entry<Scalar>::column);
      const std::int64_t first = kept;
      for (const auto& entry : row) {
        if (kept > first && rows.indices[static_cast<std::size_t>(kept - 1)] == entry.column) {
          values[static_cast<std::size_t>(kept - 1)] += entry.value;
          continue;
        }
        rows.indices[static_cast<std::size_t>(kept)] = entry.column;
        values[static_cast<std::size_t>(kept++)] = entry.value;
      }
    }
    begin = end;
    rows.offsets[i] = kept;
  }
  rows.indices.resize(static_cast<std::size_t>(kept));
  values.resize(static_cast<std::size_t>(kept));
}

}  // namespace

std::int64_t item_bytes(Storage type) { return type == Storage::float64 ? 8 : type == Storage::float32 ? 4 : 2; }

std::string_view option_name(Storage type) {
  return type == Storage::float64   ? "double"
         : type == Storage::float32 ? "float"
         : type == Storage::float16 ? "half"
                                    : "bfloat16";
}

void sort_rows(CsrRows& rows) {
  if (rows.is_single) {
    sort_as(rows, rows.singles);
  } else {
    sort_as(rows, rows.values);
  }
}

void check_rows(const CsrView& rows) {
  if (rows.columns < 1 || rows.columns > std::numeric_limits<std::int32_t>::max())
    fail("found " + std::to_string(rows.columns) + " columns, expected 1 to 2^31 - 1");
  if (rows.offsets.empty() || rows.offsets.front() != 0) fail("the offsets must begin with 0");
  for (std::size_t i = 1; i < rows.offsets.size(); ++i)
    if (rows.offsets[i] < rows.offsets[i - 1])
      fail("the offsets decrease after row " + std::to_string(i - 1) + ": " + std::to_string(rows.offsets[i - 1]) +
           ", then " + std::to_string(rows.offsets[i]));
  const auto entries = static_cast<std::size_t>(rows.entries());
  const std::size_t values = rows.is_single ? rows.singles.size() : rows.values.size();
  if (rows.indices.size() != entries || values != entries)
    fail("the offsets end with " + std::to_string(entries) + ", but there are " + std::to_string(rows.indices.size()) +
         " columns and " + std::to_string(values) + " values");
  for (Index i = 0; i < rows.rows(); ++i) {
    std::int64_t before = -1;
    const auto row = static_cast<std::size_t>(i);
    for (auto k = static_cast<std::size_t>(rows.offsets[row]); k < static_cast<std::size_t>(rows.offsets[row + 1]);
         ++k) {
      const std::int64_t column = rows.indices[k];
      if (column < 0 || column >= rows.columns)
        fail("row " + std::to_string(i) + " has an entry in column " + std::to_string(column) + " of " +
             std::to_string(rows.columns));
      if (column <= before)
        fail("the columns of row " + std::to_string(i) + " do not increase: " + std::to_string(before) + ", then " +
             std::to_string(column) + "; call sort_rows first");
      before = column;
    }
  }
}

}  // namespace attnreg
