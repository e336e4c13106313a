// A slot of a checkpoint: as it is, and with the checksum of its bytes, so that what is behind the check is reached.
// What is read is written as it was.

#include <zlib.h>

#include <array>
#include <cstdio>
#include <string_view>

#include "app/run/checkpoint.hpp"
#include "bytes_as_file.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace attnreg;
  const std::string_view bytes(reinterpret_cast<const char*>(data), size);
  std::uint64_t count = 0;
  fuzz::read_or_refuse([&] { app::from_bytes(bytes, count); });

  std::array<char, 64> first_line{};
  const auto sum = static_cast<unsigned>(::crc32_z(0, data, size));
  std::snprintf(first_line.data(), first_line.size(), "attnreg-checkpoint-1 7 %zu %08x\n", size, sum);
  fuzz::read_or_refuse([&] {
    const app::Checkpoint checkpoint = app::from_bytes(first_line.data() + std::string(bytes), count);
    const std::string written = app::to_bytes(checkpoint, count);
    if (app::to_bytes(app::from_bytes(written, count), count) != written) std::abort();
  });
  return 0;
}
