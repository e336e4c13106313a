// A list of sequences; the files that it names are not there, or are the list itself.

#include "app/run/sequence_list.hpp"
#include "bytes_as_file.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace attnreg;
  const std::string path = fuzz::as_file(data, size);
  fuzz::read_or_refuse([&] { app::examine_list(path, "causal"); });
  return 0;
}
