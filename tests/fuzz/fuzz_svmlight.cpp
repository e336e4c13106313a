// A svmlight file, plain or compressed: its matrix with either first index, in rows and in columns, and its targets.

#include "attnreg/files.hpp"
#include "bytes_as_file.hpp"
#include "files/sparse_file.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace attnreg;
  const std::string path = fuzz::as_file(data, size, ".svm");
  for (const char* const part : {"", ":zero-based", ":one-based", ":target"}) {
    fuzz::read_or_refuse([&] { load_matrix(fuzz::communicator(), path + part, StorageChoice::as_file); });
    fuzz::read_or_refuse([&] {
      // An index is the number of a row here, for which there must be memory.
      constexpr std::int64_t kMost = 1 << 20;
      if (is_sparse(path + part) && read_sparse_header(path + part).columns <= kMost)
        load_transpose(fuzz::communicator(), path + part, StorageChoice::float32);
    });
  }
  return 0;
}
