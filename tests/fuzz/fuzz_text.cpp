// A text, plain or compressed, as a table of numbers and as Matrix Market, in rows and in columns.

#include "attnreg/files.hpp"
#include "bytes_as_file.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace attnreg;
  for (const char* const ending : {".csv", ".tsv", ".mtx"}) {
    const std::string path = fuzz::as_file(data, size, ending);
    fuzz::read_or_refuse([&] { load_matrix(fuzz::communicator(), path, StorageChoice::as_file); });
    fuzz::read_or_refuse([&] { load_transpose(fuzz::communicator(), path, StorageChoice::float32); });
  }
  return 0;
}
