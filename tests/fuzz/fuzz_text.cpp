// A text, plain or compressed, as a table of numbers and as Matrix Market, in rows and in columns.

#include "attnreg/files.hpp"
#include "bytes_as_file.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace attnreg;
  const auto path = [&](const char* ending) { return fuzz::as_file(data, size, ending); };
  const auto rows = [&](const char* ending) {
    return [&, ending] { load_matrix(fuzz::communicator(), path(ending), StorageChoice::as_file); };
  };
  const auto columns = [&](const char* ending) {
    return [&, ending] { load_transpose(fuzz::communicator(), path(ending), StorageChoice::float32); };
  };
  fuzz::read_in_one_way(data, size, rows(".csv"), rows(".tsv"), rows(".mtx"), columns(".csv"), columns(".tsv"),
                        columns(".mtx"));
  return 0;
}
