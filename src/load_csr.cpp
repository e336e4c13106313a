#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <memory>
#include <optional>
#include <type_traits>
#include <utility>

#include "attnreg/npz.hpp"
#include "memory.hpp"
#include "npz_archive.hpp"
#include "printable.hpp"

namespace attnreg {
namespace {

constexpr std::int64_t chunk = std::int64_t{1} << 17;
constexpr const char* how_to_save = "; save it with scipy.sparse.save_npz('A.npz', A.tocsr())";

[[noreturn]] void fail(const std::string& path, const std::string& problem) {
  throw InvalidArgument(printable(path) + ": " + problem);
}

bool is_of(const NpyArray& array, char kind) {
  return array.kind == kind && (array.item_bytes == 4 || array.item_bytes == 8);
}

void require_vector(const NpyArray& array, char kind, const char* types, std::int64_t size,
                    const std::string& meaning) {
  if (!is_of(array, kind))
    fail(array.path, "found dtype " + printable(array.dtype, 40) + ", expected " + types +
                         (kind == 'f' ? "; convert with A.astype('<f8')" : "; the file is damaged"));
  if (array.shape.size() == 1 && (size < 0 || array.shape[0] == size)) return;
  fail(array.path, "found shape " + array.shape_text() + ", expected (" + (size < 0 ? "k" : std::to_string(size)) +
                       ",): " + meaning + how_to_save);
}

/// The archive of a CSR matrix with its three long arrays.
class CsrFile {
 public:
  explicit CsrFile(const std::string& path) : archive_(path) {
    header_.path = path;
    header_.file_bytes = archive_.bytes();
    header_.modified_ns = archive_.modified_ns();
    require_csr();
    read_shape();
    for (auto [name, member] : {std::pair{"indptr", &indptr_}, {"indices", &indices_}, {"data", &data_}}) {
      member->emplace(archive_, name);
      header_.deflated = header_.deflated || !(*member)->is_stored();
    }
    require_vector(data().header(), 'f', "<f4 or <f8", -1, "one value per entry");
    header_.nonzeros = data().header().shape[0];
    header_.type = data().header().item_bytes == 4 ? Storage::float32 : Storage::float64;
    require_vector(indices().header(), 'i', "<i4 or <i8", header_.nonzeros, "one column per value of data.npy");
    require_vector(indptr().header(), 'i', "<i4 or <i8", header_.rows + 1, "one position per row, and the end");
  }

  CsrFile(const CsrFile&) = delete;  // its members point to its archive
  CsrFile& operator=(const CsrFile&) = delete;

  const NpzHeader& header() const { return header_; }
  NpzMember& indptr() { return *indptr_; }
  NpzMember& indices() { return *indices_; }
  NpzMember& data() { return *data_; }
  void check_unchanged() const { archive_.check_unchanged(); }

 private:
  void require_csr() const {
    if (archive_.has("format")) {
      const std::string format = NpzMember(archive_, "format").read_text();
      if (format != "csr")
        fail(archive_.path(), "a sparse matrix of format '" + printable(format, 20) + "', expected csr" + how_to_save);
    }
    for (const char* const name : {"format", "shape", "indptr", "indices", "data"}) {
      if (archive_.has(name)) continue;
      std::string found;
      for (const auto& other : archive_.names()) found += (found.empty() ? "" : ", ") + printable(other, 40);
      fail(archive_.path(), "no array '" + std::string(name) + "' in the archive, found " +
                                (found.empty() ? "none" : found) +
                                "; expected a sparse CSR matrix as scipy.sparse.save_npz writes it; a dense array "
                                "belongs into a .npy file (numpy.save)");
    }
  }

  void read_shape() {
    NpzMember member(archive_, "shape");
    require_vector(member.header(), 'i', "<i4 or <i8", 2, "rows and columns");
    std::int64_t extents[2];
    member.read(0, extents);
    header_.rows = extents[0];
    header_.columns = extents[1];
    const std::string found =
        "shape (" + std::to_string(extents[0]) + ", " + std::to_string(extents[1]) + "), expected ";
    if (extents[0] < 1 || extents[1] < 1) fail(archive_.path(), found + "at least one row and one column");
    if (extents[0] >= std::int64_t{1} << 60 || extents[1] > std::numeric_limits<std::int32_t>::max())
      fail(archive_.path(), found + "fewer than 2^60 rows and 2^31 columns");
  }

  NpzArchive archive_;
  NpzHeader header_;
  std::optional<NpzMember> indptr_, indices_, data_;
};

std::string summary_of(const NpzHeader& header) {
  return "shape (" + std::to_string(header.rows) + ", " + std::to_string(header.columns) + ") with " +
         std::to_string(header.nonzeros) + " entries of " + (header.type == Storage::float32 ? "f4" : "f8");
}

/// Collective. Every rank reads the headers itself, since nodes may have copies of the file; they must agree.
std::unique_ptr<CsrFile> open_file(const Communicator& communicator, const std::string& path) {
  std::unique_ptr<CsrFile> file;
  communicator.agree([&] { file = std::make_unique<CsrFile>(path); });
  const std::string found = summary_of(file->header()), at_root = communicator.broadcast(found);
  communicator.agree([&] {
    if (found != at_root)
      fail(path, "rank " + std::to_string(communicator.rank()) + " found " + found + ", rank 0 " + at_root +
                     "; all nodes must see the same file");
  });
  return file;
}

/// Collective. Each rank reads an even share of indptr, checks it, and counts how many of its values lie before each
/// rank's share of the entries: the counts of all ranks together are the first rows.
RowPartition partition_by_entries(const Communicator& communicator, CsrFile& file) {
  const NpzHeader& header = file.header();
  const int ranks = communicator.size(), rank = communicator.rank();
  const auto share = [&](std::int64_t total, int k) {
    return total / ranks * k + std::min<std::int64_t>(total % ranks, k);
  };
  std::vector<double> before(static_cast<std::size_t>(ranks) + 1, 0.0);  // counts: exact below 2^53
  communicator.agree([&] {
    const std::int64_t begin = share(header.rows + 1, rank), end = share(header.rows + 1, rank + 1);
    const std::string& path = file.indptr().header().path;
    std::vector<std::int64_t> part;
    std::int64_t previous = 0;
    if (begin > 0 && begin < end) file.indptr().read(begin - 1, std::span(&previous, 1));
    for (std::int64_t first = begin; first < end; first += chunk) {
      part.resize(static_cast<std::size_t>(std::min(chunk, end - first)));
      file.indptr().read(first, std::span(part));
      if (first == 0 && part[0] != 0)
        fail(path, "starts with " + std::to_string(part[0]) + ", expected 0" + how_to_save);
      for (std::size_t k = 0; k < part.size(); ++k) {
        if (part[k] < previous)
          fail(path, "decreases at row " + std::to_string(first + static_cast<std::int64_t>(k) - 1) + ": " +
                         std::to_string(previous) + ", then " + std::to_string(part[k]) +
                         " (counted from 0); the file is damaged");
        previous = part[k];
      }
      for (int k = 1; k < ranks; ++k)
        before[static_cast<std::size_t>(k)] +=
            static_cast<double>(std::ranges::lower_bound(part, share(header.nonzeros, k)) - part.begin());
    }
    if (end == header.rows + 1 && begin < end && previous != header.nonzeros)
      fail(path, "ends with " + std::to_string(previous) + ", expected " + std::to_string(header.nonzeros) +
                     ", the number of entries" + how_to_save);
  });
  communicator.sum(before);
  std::vector<std::int64_t> first_rows;
  for (const double count : before) first_rows.push_back(static_cast<std::int64_t>(count));
  first_rows.back() = header.rows;
  return RowPartition(std::move(first_rows));
}

/// Local. This rank's columns, checked.
void read_columns(CsrFile& file, std::int64_t first_row, std::int64_t first_entry, CsrRows& rows) {
  const auto entries = static_cast<std::int64_t>(rows.indices.size());
  std::vector<std::int64_t> part;
  for (std::int64_t first = 0; first < entries; first += chunk) {
    part.resize(static_cast<std::size_t>(std::min(chunk, entries - first)));
    file.indices().read(first_entry + first, std::span(part));
    const auto wrong = std::ranges::find_if(part, [&](std::int64_t j) { return j < 0 || j >= rows.columns; });
    if (wrong != part.end()) {
      const std::int64_t entry = first + (wrong - part.begin());
      const auto row = std::ranges::upper_bound(rows.offsets, entry) - rows.offsets.begin() - 1;
      fail(file.indices().header().path, "row " + std::to_string(first_row + row) + " has an entry in column " +
                                             std::to_string(*wrong) + ", expected 0 to " +
                                             std::to_string(rows.columns - 1) + " (counted from 0)" + how_to_save);
    }
    std::ranges::transform(part, rows.indices.begin() + first,
                           [](std::int64_t j) { return static_cast<std::int32_t>(j); });
  }
}

/// By exponents, so that no compiler option that assumes finite values can remove it.
bool is_not_finite(double value) {
  constexpr auto exponent = std::bit_cast<std::uint64_t>(std::numeric_limits<double>::infinity());
  return (std::bit_cast<std::uint64_t>(value) & exponent) == exponent;
}

/// Collective. As for dense files: the first place, and how many there are.
template <class Scalar>
void require_finite(const Communicator& communicator, CsrFile& file, std::int64_t first_row, std::int64_t first_entry,
                    const CsrRows& rows, const std::vector<Scalar>& values) {
  const auto bad = [](Scalar value) { return is_not_finite(static_cast<double>(value)); };
  const auto found = std::ranges::count_if(values, bad);
  const std::int64_t count = communicator.sum(static_cast<std::int64_t>(found));
  if (count == 0) return;
  constexpr std::int64_t none = std::numeric_limits<std::int64_t>::max();
  const std::int64_t entry = found == 0 ? none : std::ranges::find_if(values, bad) - values.begin();
  const std::int64_t position = found == 0 ? none : first_entry + entry, first = communicator.min(position);
  communicator.agree([&] {
    if (position != first) return;
    const auto row = std::ranges::upper_bound(rows.offsets, entry) - rows.offsets.begin() - 1;
    double value = 0;
    file.data().read(position, std::span(&value, 1));
    const std::string counted = std::to_string(count) + (count == 1 ? " value is" : " values are");
    const std::string place = "row " + std::to_string(first_row + row) + ", column " +
                              std::to_string(rows.indices[static_cast<std::size_t>(entry)]);
    if (std::isfinite(value))
      fail(file.header().path, place + " is too large for float; " + counted +
                                   " not finite as float (rows and columns counted from 0); use --storage double");
    fail(file.header().path, place + " is " +
                                 (std::isnan(value) ? "nan"
                                  : value > 0       ? "inf"
                                                    : "-inf") +
                                 "; " + counted +
                                 " not finite (rows and columns counted from 0); find them with "
                                 "numpy.isfinite(A.data) and drop or replace them");
  });
}

/// Collective.
template <class Scalar>
CsrRows read_rows(const Communicator& communicator, CsrFile& file, const RowPartition& partition,
                  std::vector<Scalar> CsrRows::*values) {
  const std::int64_t first_row = partition.begin(communicator.rank());
  std::int64_t first_entry = 0;
  CsrRows rows;
  rows.is_single = std::is_same_v<Scalar, float>;
  communicator.agree([&] {
    rows.columns = static_cast<Index>(file.header().columns);
    rows.offsets.resize(static_cast<std::size_t>(partition.rows_local(communicator.rank())) + 1);
    file.indptr().read(first_row, std::span(rows.offsets));
    file.check_unchanged();
    first_entry = rows.offsets.front();
    for (std::int64_t& offset : rows.offsets) offset -= first_entry;
    rows.indices.resize(static_cast<std::size_t>(rows.entries()));
    (rows.*values).resize(static_cast<std::size_t>(rows.entries()));
    read_columns(file, first_row, first_entry, rows);
    file.data().read(first_entry, std::span(rows.*values));
    file.check_unchanged();
  });
  require_finite(communicator, file, first_row, first_entry, rows, rows.*values);
  communicator.agree([&] { sort_rows(rows); });
  return rows;
}

/// Local. The entries of this rank's rows.
std::int64_t entries_of(CsrFile& file, std::int64_t begin, std::int64_t end) {
  std::int64_t first = 0, last = 0;
  file.indptr().read(begin, std::span(&first, 1));
  file.indptr().read(end, std::span(&last, 1));
  return last - first;
}

}  // namespace

bool is_npz(const std::string& path) {
  if (path.ends_with(".npz")) return true;
  const InputFile file(path);
  if (file.bytes() < 4) return false;
  char start[4];
  file.read(0, start, 4);
  return std::string_view(start, 4) == "PK\x03\x04";
}

NpzHeader read_npz_header(const std::string& path) { return CsrFile(path).header(); }

SparseRows load_csr(const Communicator& communicator, const std::string& path, StorageChoice storage) {
  const std::unique_ptr<CsrFile> opened = open_file(communicator, path);
  CsrFile& file = *opened;
  const NpzHeader& header = file.header();
  const bool single =
      storage == StorageChoice::float32 || (storage == StorageChoice::as_file && header.type == Storage::float32);
  RowPartition partition = partition_by_entries(communicator, file);
  const std::int64_t begin = partition.begin(communicator.rank()), end = partition.end(communicator.rank());
  std::int64_t entries = 0;
  communicator.agree([&] { entries = entries_of(file, begin, end); });
  const double bytes = static_cast<double>(entries) * (single ? 8 : 12) + 8 * static_cast<double>(end - begin);
  require_memory(communicator, bytes,
                 printable(path) + ": " + summary_of(header) + " as " + (single ? "float" : "double"));
  CsrRows rows = single ? read_rows(communicator, file, partition, &CsrRows::singles)
                        : read_rows(communicator, file, partition, &CsrRows::values);
  return {std::move(partition), std::move(rows)};
}

}  // namespace attnreg
