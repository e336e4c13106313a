// A .npy file as a matrix, as its transpose, as one matrix of several, and as a vector.

#include "attnreg/files.hpp"
#include "bytes_as_file.hpp"
#include "files/source.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace attnreg;
  const Communicator& communicator = fuzz::communicator();
  const std::string path = fuzz::as_file(data, size);
  fuzz::read_in_one_way(
      data, size, [&] { load_matrix(communicator, path, StorageChoice::as_file); },
      [&] { load_matrix(communicator, path, StorageChoice::float16); },
      [&] { load_transpose(communicator, path, StorageChoice::float64); },
      [&] { load_replicated_matrix(communicator, path + "[1]"); },
      [&] {
        const Source header = open_source(path);
        const RowPartition rows = RowPartition::tiled(header.shape.at(0), header.columns(), 1);
        load_matrix_rows<float>(communicator, path, "target", rows, header.columns());
        load_rows_vector(communicator, path, "b", rows);
      });
  return 0;
}
