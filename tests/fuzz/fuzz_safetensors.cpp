// A .safetensors file as a matrix, and one of its tensors by name.

#include "attnreg/files.hpp"
#include "bytes_as_file.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace attnreg;
  const std::string path = fuzz::as_file(data, size, ".safetensors");
  fuzz::read_in_one_way(
      data, size, [&] { load_matrix(fuzz::communicator(), path, StorageChoice::as_file); },
      [&] { load_matrix(fuzz::communicator(), path + ":a", StorageChoice::float64); },
      [&] { load_transpose(fuzz::communicator(), path + ":b[1]", StorageChoice::float32); });
  return 0;
}
