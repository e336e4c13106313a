// A svmlight file, plain or compressed: its matrix with either first index, in rows and in columns, and its targets.

#include "attnreg/files.hpp"
#include "bytes_as_file.hpp"
#include "files/sparse_file.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace attnreg;
  const std::string path = fuzz::as_file(data, size, ".svm");
  const auto rows = [&](const char* part) {
    return [&, part] { load_matrix(fuzz::communicator(), path + part, StorageChoice::as_file); };
  };
  const auto columns = [&](const char* part) {
    return [&, part] {
      // An index is the number of a row here, for which there must be memory.
      constexpr std::int64_t kMost = 1 << 20;
      if (read_sparse_header(path + part).columns <= kMost)
        load_transpose(fuzz::communicator(), path + part, StorageChoice::float32);
    };
  };
  fuzz::read_in_one_way(data, size, rows(""), rows(":zero-based"), rows(":one-based"), rows(":target"), columns(""),
                        columns(":zero-based"), columns(":one-based"));
  return 0;
}
