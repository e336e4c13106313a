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

/// The .npy arrays in a .npz archive, stored or deflated. Everything is local and throws `InvalidArgument` (this rank).
class NpzArchive {
 public:
  explicit NpzArchive(const std::string& path);

  const std::string& path() const { return path_; }
  std::int64_t bytes() const { return bytes_; }

  /// The names of the arrays in the order of the archive, without ".npy", at most `most`.
  std::vector<std::string> names(std::int64_t most = 20) const;
  bool has(std::string_view name) const;

  /// Size and time of modification are as they were when the archive was opened.
  void check_unchanged() const { file_.check_unchanged(bytes_, modified_ns_); }

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
  /// The archive must outlive the member. Reads and checks the header, as `read_npy_header` does for a file.
  NpzMember(const NpzArchive& archive, const std::string& name);

  const NpyArray& header() const { return header_; }
  bool is_stored() const { return is_stored_; }

  /// Elements [first, first + out.size()) of an array of f4, f8, i4 or i8, in the order of the file. Where the read
  /// ends with the array, the checksum is compared, if all of the array was read in one go.
  void read(std::int64_t first, std::span<double> out);
  void read(std::int64_t first, std::span<float> out);
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
  template <class Stored, class Scalar>
  void read_as(std::int64_t first, std::span<Scalar> out);
  template <class Scalar>
  void read_any(std::int64_t first, std::span<Scalar> out);

  const NpzArchive* archive_;
  std::uint64_t index_ = 0;
  bool is_stored_ = false;
  NpyArray header_;
  std::unique_ptr<zip_file, Close> file_;
  std::int64_t position_ = 0;  ///< of the next byte
};

}  // namespace attnreg
