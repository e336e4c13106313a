#include "files/csr_file.hpp"

#include <limits>
#include <utility>

#include "errors/printable.hpp"
#include "files/finite_check.hpp"
#include "files/input_file.hpp"

namespace attnreg {

namespace {

bool is_of(const NpyArray& array, char kind) {
  return array.kind == kind && (array.item_bytes == 4 || array.item_bytes == 8);
}

void require_vector(const NpyArray& array, char kind, const char* types, std::int64_t size,
                    const std::string& meaning) {
  if (!is_of(array, kind))
    refuse_file(array.path, "found dtype " + printable(array.dtype, 40) + ", expected " + types +
                                (kind == 'f' ? "; convert with A.astype('<f8')" : "; the file is damaged"));
  if (array.shape.size() == 1 && (size < 0 || array.shape[0] == size)) return;
  refuse_file(array.path, "found shape " + array.shape_text() + ", expected (" +
                              (size < 0 ? "k" : std::to_string(size)) + ",): " + meaning + how_to_save);
}

}  // namespace

CsrFile::CsrFile(const std::string& path, Formats formats) : archive_(path) {
  header_.path = path;
  read_format(formats);
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

void CsrFile::read_format(Formats formats) {
  if (archive_.has("format")) {
    const std::string format = NpzMember(archive_, "format").read_text();
    by_columns_ = formats == Formats::csr_or_csc && format == "csc";
    if (format != "csr" && !by_columns_)
      refuse_file(archive_.path(), "a sparse matrix of format '" + printable(format, 20) + "', expected csr" +
                                       (formats == Formats::csr_or_csc ? " or csc" : "") + how_to_save);
  }
  for (const char* const name : {"format", "shape", "indptr", "indices", "data"}) {
    if (archive_.has(name)) continue;
    std::string found;
    for (const auto& other : archive_.names()) found += (found.empty() ? "" : ", ") + printable(other, 40);
    refuse_file(archive_.path(), "no array '" + std::string(name) + "' in the archive, found " +
                                     (found.empty() ? "none" : found) +
                                     "; expected a sparse CSR matrix as scipy.sparse.save_npz writes it; a dense array "
                                     "belongs into a .npy file (numpy.save)");
  }
}

void CsrFile::read_shape() {
  NpzMember member(archive_, "shape");
  require_vector(member.header(), 'i', "<i4 or <i8", 2, "rows and columns");
  std::int64_t extents[2];
  member.read(0, extents);
  header_.rows = extents[by_columns_ ? 1 : 0];
  header_.columns = extents[by_columns_ ? 0 : 1];
  const std::string found = "shape (" + std::to_string(extents[0]) + ", " + std::to_string(extents[1]) + "), expected ";
  if (extents[0] < 1 || extents[1] < 1) refuse_file(archive_.path(), found + "at least one row and one column");
  if (header_.rows >= std::int64_t{1} << 60 || header_.columns > std::numeric_limits<std::int32_t>::max())
    refuse_file(archive_.path(), found + (by_columns_ ? "fewer than 2^31 rows and 2^60 columns"
                                                      : "fewer than 2^60 rows and 2^31 columns"));
}

void CsrFile::refuse_column(std::int64_t row, std::int64_t column) const {
  const std::string row_name = by_columns_ ? "column " : "row ", column_name = by_columns_ ? "row " : "column ";
  refuse_file(indices_->header().path, row_name + std::to_string(row) + " has an entry in " + column_name +
                                           std::to_string(column) + ", expected 0 to " +
                                           std::to_string(header_.columns - 1) + " (counted from 0)" + how_to_save);
}

void CsrFile::refuse_value_at(std::int64_t row, std::int64_t column, double value, std::int64_t count) const {
  if (by_columns_) std::swap(row, column);
  refuse_value(header_.path, value, "row " + std::to_string(row) + ", column " + std::to_string(column), count,
               "numpy.isfinite(A.data)");
}

std::string CsrFile::summary() const {
  return "shape (" + std::to_string(header_.rows) + ", " + std::to_string(header_.columns) + ") with " +
         std::to_string(header_.nonzeros) + " entries of " + (header_.type == Storage::float32 ? "f4" : "f8") +
         (by_columns_ ? " (transposed)" : "");
}

std::unique_ptr<CsrFile> open_csr_file(const Communicator& communicator, const std::string& path,
                                       CsrFile::Formats formats) {
  std::unique_ptr<CsrFile> file;
  communicator.agree([&] { file = std::make_unique<CsrFile>(path, formats); });
  require_same_file(communicator, path, "", file->summary());
  return file;
}

}  // namespace attnreg
