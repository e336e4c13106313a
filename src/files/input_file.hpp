#pragma once

#include <cstdint>
#include <span>
#include <string>

#include "attnreg/communicator.hpp"
#include "attnreg/row_storage.hpp"
#include "files/file_descriptor.hpp"

namespace attnreg {

/// Local. Throws `InvalidArgument` (this rank): the file, printable, and what is wrong with it.
[[noreturn]] void refuse_file(const std::string& path, const std::string& problem);

/// Local. Remembers a file, by device and inode, as one that no output of this process may replace. Nothing happens if
/// there is no such file.
void remember_input(const std::string& path);
/// Local. Whether this is a file that was remembered, under whatever name.
bool is_input(const std::string& path);

/// Local. From now on deflated archives are read whatever size they grow to.
void trust_inputs();
/// Local. Throws `InvalidArgument` (this rank) for a deflated archive that grows from `file_bytes` to more than 1 GB,
/// and more than 100 times what it was: it was made to fill the memory. Those of honest data grow by less: zeros and
/// constants by up to 1000, but the columns of the entries, which belong to them, by less than 10.
void require_honest_growth(const std::string& path, std::int64_t file_bytes, std::int64_t grown_bytes);

/// An input file: opened without waiting for the writer of a pipe, regular, and the same from open
/// to close. Everything is local and throws `InvalidArgument` (this rank) with path, reason and what to do.
class InputFile {
 public:
  /// `expected` ("a .npy file") is what a directory of that name should have been.
  explicit InputFile(std::string path, const char* expected = "a .npy file");

  std::int64_t bytes() const;
  std::int64_t modified_ns() const;
  int descriptor() const { return file_.get(); }

  /// Size and time of modification are as they were.
  void check_unchanged(std::int64_t bytes_before, std::int64_t modified_ns_before) const;

  /// Fills `size` bytes at `out` from `offset`.
  void read(std::int64_t offset, void* out, std::int64_t size) const;

 private:
  std::string path_;
  FileDescriptor file_;
};

/// Collective. Every rank reads the headers itself, since nodes may have copies of the file; they must agree. found:
/// what this rank found. Throws `InvalidArgument` on all ranks.
void require_same_file(const Communicator& communicator, const std::string& path, const std::string& what,
                       const std::string& found);

/// The values of a list that are not finite.
struct NonFinite {
  std::int64_t count = 0;
  std::int64_t first = 0;  ///< position of the first one, if there are any

  /// Those of a part of the list that begins at `position`, behind the parts before.
  void add(const NonFinite& part, std::int64_t position) {
    if (count == 0) first = position + part.first;
    count += part.count;
  }
};

/// Local. Looks at the exponents, so that no compiler option that assumes finite values can remove it.
NonFinite find_non_finite(std::span<const double> values);
NonFinite find_non_finite(std::span<const float> values);
NonFinite find_non_finite(std::span<const Eigen::half> values);
NonFinite find_non_finite(std::span<const Eigen::bfloat16> values);

/// Local. Throws `InvalidArgument` (this rank): why a value of a file cannot be used, which is not finite, or not in
/// the type `held`. place: "row 3, column 5"; count: such values in all; finder: what finds them in Python.
[[noreturn]] void refuse_value(const std::string& path, double value, const std::string& place, std::int64_t count,
                               const char* finder = "numpy.isfinite", Storage held = Storage::float32);

/// Collective. Where values are not finite, the lowest rank with such a value calls `refuse(position, count)`, which
/// throws on this rank what is then thrown on all; position: of its first one; count: of all ranks.
template <class Refuse>
void require_finite(const Communicator& communicator, const NonFinite& found, Refuse&& refuse) {
  const std::int64_t count = communicator.sum(found.count);
  if (count == 0) return;
  communicator.agree([&] {
    if (found.count > 0) refuse(found.first, count);
  });
}
template <class Scalar, class Refuse>
void require_finite(const Communicator& communicator, std::span<const Scalar> values, Refuse&& refuse) {
  require_finite(communicator, find_non_finite(values), refuse);
}

}  // namespace attnreg
