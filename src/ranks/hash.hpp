#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>

namespace attnreg {

/// Local. As FNV-1a, over words of 8 bytes, which are also turned round. Each step maps the words one to one, and what
/// came before likewise: bytes that differ in one word never have the same hash, others only by chance. start: the hash
/// of what goes before.
inline std::uint64_t hash_of(std::span<const char> bytes, std::uint64_t start = 14695981039346656037u) {
  constexpr std::uint64_t kPrime = 1099511628211u;
  constexpr int kTurn = 29;
  std::uint64_t hash = start;
  std::size_t k = 0;
  for (; k + sizeof hash <= bytes.size(); k += sizeof hash) {
    std::uint64_t word = 0;
    std::memcpy(&word, bytes.data() + k, sizeof word);
    hash = std::rotl((hash ^ word) * kPrime, kTurn);
  }
  if (k == bytes.size()) return hash;
  std::uint64_t word = 0;
  std::memcpy(&word, bytes.data() + k, bytes.size() - k);
  return std::rotl((hash ^ word) * kPrime, kTurn);
}

/// Local. The same of numbers.
inline std::uint64_t hash_of(std::span<const double> numbers, std::uint64_t start) {
  return hash_of(std::span(reinterpret_cast<const char*>(numbers.data()), numbers.size_bytes()), start);
}

}  // namespace attnreg
