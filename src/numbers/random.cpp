#include "numbers/random.hpp"

#include <Random123/philox.h>

#include <cmath>
#include <cstddef>
#include <numbers>

#include "numbers/vector_math.hpp"

namespace attnreg {

namespace {

/// The key under which seeds and purposes are hashed: the first words of the fraction of pi. Part of the definition of
/// all data and results: never change it.
constexpr std::array<std::uint32_t, 2> hash_key{0x243f6a88, 0x85a308d3};

std::uint32_t low_word(std::uint64_t value) { return static_cast<std::uint32_t>(value); }
std::uint32_t high_word(std::uint64_t value) { return static_cast<std::uint32_t>(value >> 32); }

/// (k + 1/2) 2^-52 with the 52 leading bits k: exact in double, and never 0 or 1.
double open_unit(std::uint32_t high, std::uint32_t low) {
  const std::uint64_t k = (static_cast<std::uint64_t>(high) << 32 | low) >> 12;
  return (static_cast<double>(k) + 0.5) * 0x1p-52;
}

}  // namespace

std::array<std::uint32_t, 4> philox4x32_10(const std::array<std::uint32_t, 4>& counter,
                                           const std::array<std::uint32_t, 2>& key) {
  const philox4x32_ctr_t in{{counter[0], counter[1], counter[2], counter[3]}};
  const philox4x32_key_t with{{key[0], key[1]}};
  const philox4x32_ctr_t out = philox4x32_R(10, in, with);
  return {out.v[0], out.v[1], out.v[2], out.v[3]};
}

RandomStream::RandomStream(std::uint64_t seed, Purpose purpose, std::uint32_t iteration) : iteration_(iteration) {
  const auto hash = philox4x32_10({low_word(seed), high_word(seed), static_cast<std::uint32_t>(purpose), 0}, hash_key);
  key_ = {hash[0], hash[1]};
}

std::array<std::uint32_t, 4> RandomStream::bits(std::int64_t index, std::uint32_t draw) const {
  const auto unsigned_index = static_cast<std::uint64_t>(index);
  return philox4x32_10({low_word(unsigned_index), high_word(unsigned_index), draw, iteration_}, key_);
}

double RandomStream::uniform(std::int64_t index, std::uint32_t draw) const {
  const auto word = bits(index, draw);
  return open_unit(word[0], word[1]);
}

void RandomStream::uniforms(std::int64_t first, std::span<double> values) const {
  kernels::open_uniforms({key_, iteration_, static_cast<std::uint64_t>(first)}, values);
}

void RandomStream::normals(std::int64_t index, std::span<double> values) const {
  for (std::size_t k = 0; k < values.size(); k += 2) {
    const auto word = bits(index, static_cast<std::uint32_t>(k / 2));
    const double radius = std::sqrt(-2 * std::log(open_unit(word[0], word[1])));
    const double angle = 2 * std::numbers::pi * open_unit(word[2], word[3]);
    values[k] = radius * std::cos(angle);
    if (k + 1 < values.size()) values[k + 1] = radius * std::sin(angle);
  }
}

}  // namespace attnreg
