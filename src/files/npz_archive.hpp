#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "files/input_file.hpp"
#include "files/npy_header.hpp"

struct zip;
struct zip_file;

namespace attnreg {

/// Local. Whether a file is to be read as an archive: its name ends with ".npz", or it begins as an archive does.
bool is_npz(const InputFile& file, const std::string& name);

/// "found a, b and 7 more": the first names of `count`.
std::string names_text(const std::vector<std::string>& names, std::int64_t count);

/// The .npy arrays in a .npz archive, stored or deflated. Everything is local and throws `InvalidArgument` (this rank).
class NpzArchive {
 public:
  explicit NpzArchive(const std::string& path);

  const std::string& path() const { return path_; }
  std::int64_t bytes() const { return bytes_; }
  std::int64_t modified_ns() const { return modified_ns_; }

  std::int64_t count() const;  ///< of the arrays
  /// The names of the arrays in the order of the archive, without ".npy", at most `most`.
  std::vector<std::string> names(std::int64_t most = 20) const;
  bool has(std::string_view name) const;
  /// Whether it is, or was meant to be, a sparse matrix of SciPy's: one of the arrays is called format, indptr or
  /// indices.
  bool is_sparse() const { return has("format") || has("indptr") || has("indices"); }

  /// Size and time of modification are as they were when the archive was opened.
  void check_unchanged() const { check_unchanged(bytes_, modified_ns_); }
  /// As they were at another time.
  void check_unchanged(std::int64_t bytes, std::int64_t modified_ns) const {
    file_.check_unchanged(bytes, modified_ns);
  }

 private:
  friend class NpzMember;
  struct Discard {
    void operator()(zip* archive) const;
  };

  std::string path_;
  InputFile file_;
  std::int64_t bytes_, modified_ns_;
  std::unique_ptr<zip, Discard> zip_;
};

/// One array of an archive, read in any order; forwards is cheap. In a stored array a read begins where it is asked to,
/// in a deflated one all before it is decompressed first, unless an earlier read ended there.
class NpzMember {
 public:
  /// The archive must outlive the member. Reads and checks the header, of any type whose elements have a size.
  NpzMember(const NpzArchive& archive, const std::string& name);

  const ArrayHeader& header() const { return header_; }
  bool is_stored() const { return is_stored_; }

  /// Bytes of the array's data from `position` on. Where the read ends with the array, the checksum is compared, if all
  /// of the array was read in one go.
  void read_data(std::int64_t position, void* out, std::int64_t size);
  /// Elements [first, first + out.size()) of an array of numbers, in the order of the file.
  template <class Scalar>  // double or float
  void read(std::int64_t first, std::span<Scalar> out);
  /// The same of an array of i4 or i8.
  void read(std::int64_t first, std::span<std::int64_t> out);

  /// The characters of an array with a single 'S' or 'U' element, those above 127 as '?'.
  std::string read_text();

 private:
  struct Close {
    void operator()(zip_file* file) const;
  };

  [[noreturn]] void refuse(const std::string& problem) const { refuse_file(header_.path, problem); }
  void open();
  /// Goes to a byte of the member, forwards or backwards.
  void seek(std::int64_t position);
  void read_bytes(void* out, std::int64_t size);
  void check_range(std::int64_t first, std::size_t count) const;

  const NpzArchive* archive_;
  std::uint64_t index_ = 0;
  bool is_stored_ = false;
  ArrayHeader header_;
  std::unique_ptr<zip_file, Close> file_;
  std::int64_t position_ = 0;  ///< of the next byte
};

}  // namespace attnreg
