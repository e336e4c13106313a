// An archive, or what claims to be one, as a sparse matrix and as its transpose.

#include "attnreg/files.hpp"
#include "bytes_as_file.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace attnreg;
  const std::string path = fuzz::as_file(data, size);
  fuzz::read_in_one_way(
      data, size, [&] { load_matrix(fuzz::communicator(), path, StorageChoice::as_file); },
      [&] { load_transpose(fuzz::communicator(), path, StorageChoice::float32); });
  return 0;
}
