#include "files/crc32.hpp"

#include <array>
#include <cstddef>

namespace attnreg {
namespace {

constexpr std::uint32_t polynomial = 0xedb88320;  // reflected

using Table = std::array<std::uint32_t, 256>;

/// tables[k][b]: what byte b does to the checksum k bytes later.
constexpr std::array<Table, 8> make_tables() {
  std::array<Table, 8> tables{};
  for (std::uint32_t b = 0; b < 256; ++b) {
    std::uint32_t rest = b;
    for (int bit = 0; bit < 8; ++bit) rest = (rest >> 1) ^ ((rest & 1) * polynomial);
    tables[0][b] = rest;
  }
  for (std::size_t k = 1; k < 8; ++k)
    for (std::size_t b = 0; b < 256; ++b) tables[k][b] = (tables[k - 1][b] >> 8) ^ tables[0][tables[k - 1][b] & 0xff];
  return tables;
}

constexpr std::array<Table, 8> tables = make_tables();

/// A polynomial modulo the checksum's: bit 31 is the coefficient of 1.
std::uint32_t product(std::uint32_t a, std::uint32_t b) {
  std::uint32_t result = 0;
  for (std::uint32_t bit = std::uint32_t{1} << 31; bit != 0; bit >>= 1) {
    if (a & bit) result ^= b;
    b = (b >> 1) ^ ((b & 1) * polynomial);
  }
  return result;
}

}  // namespace

std::uint32_t crc32(std::string_view bytes) {
  const auto byte = [&](std::size_t k) { return static_cast<std::uint32_t>(static_cast<unsigned char>(bytes[k])); };
  std::uint32_t rest = 0xffffffff;
  std::size_t k = 0;
  for (; k + 8 <= bytes.size(); k += 8) {
    rest ^= byte(k) | byte(k + 1) << 8 | byte(k + 2) << 16 | byte(k + 3) << 24;
    rest = tables[7][rest & 0xff] ^ tables[6][(rest >> 8) & 0xff] ^ tables[5][(rest >> 16) & 0xff] ^
           tables[4][rest >> 24] ^ tables[3][byte(k + 4)] ^ tables[2][byte(k + 5)] ^ tables[1][byte(k + 6)] ^
           tables[0][byte(k + 7)];
  }
  for (; k < bytes.size(); ++k) rest = (rest >> 8) ^ tables[0][(rest ^ byte(k)) & 0xff];
  return ~rest;
}

std::uint32_t crc32_joined(std::uint32_t first, std::uint32_t second, std::int64_t second_bytes) {
  // The checksum of the first text is carried over 8 second_bytes zero bits, that is, multiplied by that power of x.
  std::uint32_t power = std::uint32_t{1} << 23;  // x^8
  for (auto bytes = static_cast<std::uint64_t>(second_bytes); bytes != 0; bytes >>= 1) {
    if (bytes & 1) first = product(power, first);
    power = product(power, power);
  }
  return first ^ second;
}

}  // namespace attnreg
