#pragma once

#include <cstdint>
#include <string_view>

namespace attnreg {

/// Local. The checksum of zip and gzip (polynomial 0x04c11db7, reflected) of some bytes.
std::uint32_t crc32(std::string_view bytes);

/// Local. The checksum of a text and the `second_bytes` bytes after it, from the checksums of both.
std::uint32_t crc32_joined(std::uint32_t first, std::uint32_t second, std::int64_t second_bytes);

}  // namespace attnreg
