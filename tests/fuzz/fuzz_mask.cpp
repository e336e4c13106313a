// A .npy file as a mask.

#include "bytes_as_file.hpp"
#include "files/mask_file.hpp"
#include "files/source.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace attnreg;
  const std::string path = fuzz::as_file(data, size);
  fuzz::read_or_refuse([&] {
    const Source header = open_source(path);
    const RowPartition rows = RowPartition::tiled(header.shape.at(0), header.columns(), 1);
    load_mask_rows(fuzz::communicator(), path, "mask", rows, header.columns());
  });
  return 0;
}
