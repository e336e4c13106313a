#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace attnreg {

/// The name of a matrix, `PATH[:NAME][INDEX]`, in its parts. A file that is really called so comes first: it then has
/// no other parts. Local; nothing is opened.
struct SourceName {
  std::string file;                  ///< "data.npz" of "data.npz:keys[3,7]"
  std::string member;                ///< "keys", empty without a name; only behind a file that is there
  std::vector<std::int64_t> places;  ///< 3, 7: along the first axes, as in NumPy
  bool is_pattern = false;           ///< `file` stands for files that hold the rows, one after another: `shards_of`

  explicit SourceName(const std::string& text);

  bool is_piped() const { return file == "-"; }  ///< the standard input, whatever files there are
};

/// Local. The files that a pattern stands for, in the order of their rows. "A.%05d.npy" and "A.%d.npy": of all numbers
/// from the least one there to the largest. "A.*.npy": of all files there, runs of digits compared as numbers. Throws
/// `InvalidArgument` (this rank) if there are none, if a number is missing, or if the order is not clear.
std::vector<std::string> shards_of(const std::string& pattern);

/// Whether a name has a number that varies, "A.%05d.npy", and the names with the numbers 0 to count - 1.
bool is_numbered(const std::string& pattern);
std::vector<std::string> numbered(const std::string& pattern, std::int64_t count);

/// Local. The files that a name stands for, without looking at them; none if the pattern fits no file.
std::vector<std::string> files_of(const std::string& text);

/// The name of a part of what `text` names: "F.npy[3]", "F.npy[3,7]" of "F.npy[3]".
std::string part_of(const std::string& text, std::int64_t place);

}  // namespace attnreg
