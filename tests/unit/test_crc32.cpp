#include "files/crc32.hpp"

#include <gtest/gtest.h>

#include <string>

namespace attnreg::test_crc32 {

TEST(Crc32, KnownChecksums) {
  EXPECT_EQ(crc32(""), 0u);
  EXPECT_EQ(crc32("123456789"), 0xcbf43926u);  // the check value of this polynomial
  EXPECT_EQ(crc32("The quick brown fox jumps over the lazy dog"), 0x414fa339u);
}

TEST(Crc32, JoinsParts) {
  std::string text;
  for (int k = 0; k < 300; ++k) text += static_cast<char>(k * k + 7 * k);
  for (std::size_t cut = 0; cut <= text.size(); ++cut) {
    const std::string first = text.substr(0, cut), second = text.substr(cut);
    EXPECT_EQ(crc32_joined(crc32(first), crc32(second), static_cast<std::int64_t>(second.size())), crc32(text)) << cut;
  }
}

}  // namespace attnreg::test_crc32
