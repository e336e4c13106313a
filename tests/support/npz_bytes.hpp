#pragma once

#include <zip.h>

#include <cstdint>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "support/npy_bytes.hpp"

namespace attnreg::test {

/// The members of a .npz archive in order: name with ".npy", bytes.
using NpzMembers = std::vector<std::pair<std::string, std::string>>;

/// Local. Writes an archive with libzip.
inline void write_npz(const std::string& path, const NpzMembers& members, bool deflated) {
  int error = 0;
  zip_t* const archive = zip_open(path.c_str(), ZIP_CREATE | ZIP_TRUNCATE, &error);
  if (archive == nullptr) throw std::runtime_error("cannot create " + path);
  for (const auto& [name, bytes] : members) {
    zip_source_t* const source = zip_source_buffer(archive, bytes.data(), bytes.size(), 0);
    const zip_int64_t index = zip_file_add(archive, name.c_str(), source, 0);
    if (index < 0) throw std::runtime_error("cannot add " + name);
    zip_set_file_compression(archive, static_cast<zip_uint64_t>(index), deflated ? ZIP_CM_DEFLATE : ZIP_CM_STORE, 0);
  }
  if (zip_close(archive) != 0) throw std::runtime_error("cannot write " + path);
}

/// A CSR matrix as it is in a file, right or wrong.
struct CsrFileContents {
  std::int64_t rows = 0, columns = 0;
  std::vector<std::int64_t> indptr{0}, indices;
  std::vector<double> data;
  std::string format = "csr";
  bool wide = false;    ///< indptr and indices in 8 bytes
  bool single = false;  ///< data as float
  bool big_endian = false;

  NpzMembers members() const {
    const std::string order = big_endian ? ">" : "<";
    const auto array = [&](const std::string& type, std::int64_t size, const std::string& bytes) {
      return npy_bytes(npy_dictionary(order + type, false, "(" + std::to_string(size) + ",)"), bytes);
    };
    const auto integers = [&](const std::vector<std::int64_t>& values) {
      const auto size = static_cast<std::int64_t>(values.size());
      if (wide) return array("i8", size, scalar_bytes(values, big_endian));
      return array("i4", size, scalar_bytes(std::vector<std::int32_t>(values.begin(), values.end()), big_endian));
    };
    const auto entries = static_cast<std::int64_t>(data.size());
    const std::vector<float> floats(data.begin(), data.end());
    return {{"indices.npy", integers(indices)},
            {"indptr.npy", integers(indptr)},
            {"format.npy", npy_bytes(npy_dictionary("|S" + std::to_string(format.size()), false, "()"), format)},
            {"shape.npy", integers({rows, columns})},
            {"data.npy", single ? array("f4", entries, scalar_bytes(floats, big_endian))
                                : array("f8", entries, scalar_bytes(data, big_endian))}};
  }
};

}  // namespace attnreg::test
