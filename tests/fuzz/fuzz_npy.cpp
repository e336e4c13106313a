// A .npy file as a matrix, as its transpose, as one matrix of several, and as a vector.

#include "attnreg/files.hpp"
#include "bytes_as_file.hpp"
#include "files/source.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace attnreg;
  const Communicator& communicator = fuzz::communicator();
  const std::string path = fuzz::as_file(data, size);
  fuzz::read_or_refuse([&] { load_matrix(communicator, path, StorageChoice::as_file); });
  fuzz::read_or_refuse([&] { load_matrix(communicator, path, StorageChoice::float16); });
  fuzz::read_or_refuse([&] { load_transpose(communicator, path, StorageChoice::float64); });
  fuzz::read_or_refuse([&] { load_replicated_matrix(communicator, path + "[1]"); });
  fuzz::read_or_refuse([&] {
    const Source header = open_source(path);
    const RowPartition rows = RowPartition::tiled(header.shape.at(0), header.columns(), 1);
    load_matrix_rows<float>(communicator, path, "target", rows, header.columns());
    load_rows_vector(communicator, path, "b", rows);
  });
  return 0;
}
