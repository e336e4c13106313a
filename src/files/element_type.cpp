#include "files/element_type.hpp"

#include <algorithm>
#include <bit>
#include <cstring>
#include <type_traits>

#include "attnreg/error.hpp"
#include "files/byte_order.hpp"

namespace attnreg {
namespace {

constexpr bool big_machine = std::endian::native == std::endian::big;

/// NumPy's bool: one byte.
struct Truth {
  std::uint8_t byte;
};

template <class Scalar, class Stored>
Scalar number_of(Stored value) {
  if constexpr (std::is_same_v<Stored, Truth>)
    return static_cast<Scalar>(value.byte != 0 ? 1.0f : 0.0f);
  else if constexpr (!std::is_integral_v<Stored>)
    return converted<Scalar>(value);
  else if constexpr (std::is_same_v<Scalar, float>)
    return static_cast<float>(value);  // rounded once
  else
    return converted<Scalar>(static_cast<double>(value));
}

template <class Stored, class Scalar>
void decode_as(bool big_endian, const char* bytes, std::span<Scalar> out) {
  constexpr std::size_t at_once = 512;
  Stored part[at_once];
  for (std::size_t done = 0; done < out.size(); done += at_once) {
    const std::size_t count = std::min(at_once, out.size() - done);
    std::memcpy(part, bytes + done * sizeof(Stored), count * sizeof(Stored));
    if constexpr (sizeof(Stored) > 1)
      if (big_endian != big_machine) swap_bytes(std::span(part, count));
    std::transform(part, part + count, out.begin() + static_cast<std::ptrdiff_t>(done), number_of<Scalar, Stored>);
  }
}

}  // namespace

bool ElementType::is_number() const {
  switch (kind) {
    case 'f': return bytes == 2 || bytes == 4 || bytes == 8;
    case 'i':
    case 'u': return bytes == 1 || bytes == 2 || bytes == 4 || bytes == 8;
    case 'b': return bytes == 1;
    case 'V': return bytes == 2;
    default: return false;
  }
}

Storage ElementType::held() const {
  if (kind == 'f' && bytes == 2) return Storage::float16;
  if (is_bfloat16()) return Storage::bfloat16;
  return bytes <= (kind == 'f' ? 4 : 2) ? Storage::float32 : Storage::float64;
}

std::string ElementType::text() const {
  if (is_bfloat16()) return big_endian ? ">bfloat16" : "bfloat16";
  return (bytes == 1 ? "|" : big_endian ? ">" : "<") + std::string(1, kind) + std::to_string(bytes);
}

template <class Scalar>
void decode(const ElementType& type, const char* bytes, std::span<Scalar> out) {
  const auto as = [&]<class Stored>(Stored) { decode_as<Stored>(type.big_endian, bytes, out); };
  const auto integers = [&]<class One, class Two, class Four, class Eight>(One one, Two two, Four four, Eight eight) {
    if (type.bytes == 1) return as(one);
    if (type.bytes == 2) return as(two);
    return type.bytes == 4 ? as(four) : as(eight);
  };
  if (!type.is_number()) throw InternalError("elements that are no numbers");
  switch (type.kind) {
    case 'f': return type.bytes == 2 ? as(Eigen::half()) : type.bytes == 4 ? as(float{}) : as(double{});
    case 'i': return integers(std::int8_t{}, std::int16_t{}, std::int32_t{}, std::int64_t{});
    case 'u': return integers(std::uint8_t{}, std::uint16_t{}, std::uint32_t{}, std::uint64_t{});
    case 'b': return as(Truth{});
    default: return as(Eigen::bfloat16());
  }
}
template void decode(const ElementType&, const char*, std::span<double>);
template void decode(const ElementType&, const char*, std::span<float>);
template void decode(const ElementType&, const char*, std::span<Eigen::half>);
template void decode(const ElementType&, const char*, std::span<Eigen::bfloat16>);

template <class Scalar>
bool is_native(const ElementType& type) {
  const bool same_kind = std::is_same_v<Scalar, Eigen::bfloat16> ? type.is_bfloat16() : type.kind == 'f';
  return same_kind && type.bytes == sizeof(Scalar) && type.big_endian == big_machine;
}
template bool is_native<double>(const ElementType&);
template bool is_native<float>(const ElementType&);
template bool is_native<Eigen::half>(const ElementType&);
template bool is_native<Eigen::bfloat16>(const ElementType&);

}  // namespace attnreg
