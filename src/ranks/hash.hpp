#pragma once

#include <algorithm>
#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>

namespace attnreg {

/// Local. As FNV-1a, over words of 8 bytes, which are also turned round, in eight chains that are joined in the end.
/// Each step maps the words one to one, and what came before likewise: bytes that differ in one word never have the
/// same hash, others only by chance. start: the hash of what goes before.
inline std::uint64_t hash_of(std::span<const char> bytes, std::uint64_t start = 14695981039346656037u) {
  constexpr std::size_t kWord = sizeof(std::uint64_t), kChains = 8;
  const auto step = [](std::uint64_t hash, std::uint64_t word) {
    return std::rotl((hash ^ word) * 1099511628211u, 29);
  };
  const auto word_at = [&](std::size_t first, std::size_t length) {
    std::uint64_t word = 0;
    std::memcpy(&word, bytes.data() + first, length);
    return word;
  };
  std::array<std::uint64_t, kChains> chains;
  for (std::size_t j = 0; j < kChains; ++j) chains[j] = start + j;
  std::size_t k = 0;
  for (; k + kChains * kWord <= bytes.size(); k += kChains * kWord)
    for (std::size_t j = 0; j < kChains; ++j) chains[j] = step(chains[j], word_at(k + j * kWord, kWord));
  std::uint64_t hash = bytes.size();
  for (const std::uint64_t chain : chains) hash = step(hash, chain);
  for (; k < bytes.size(); k += kWord) hash = step(hash, word_at(k, std::min(kWord, bytes.size() - k)));
  return hash;
}

/// Local. The same of numbers.
inline std::uint64_t hash_of(std::span<const double> numbers, std::uint64_t start) {
  return hash_of(std::span(reinterpret_cast<const char*>(numbers.data()), numbers.size_bytes()), start);
}

}  // namespace attnreg
