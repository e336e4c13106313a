#pragma once

#include <string>

#include "files/input_file.hpp"
#include "files/npy_header.hpp"

namespace attnreg {

/// The longest header of a .safetensors file that is read: 100 MB, as the reference implementation has it.
inline constexpr std::int64_t safetensors_header_limit = 100'000'000;

/// Local. Whether a file is to be read as safetensors: its name ends so, or it begins as such a file does.
bool is_safetensors(const InputFile& file, const std::string& name);

/// Local. The header of a tensor in a .safetensors file: 8 bytes, the length of the JSON text behind them, which says
/// of each tensor type, shape and place; then the data, little endian, in C order. `member`: its name; empty if there
/// is only one, whose name is then put there. `path` is for messages.
///
/// The whole header is checked: the tensors must fill the file without gaps and overlaps, in sizes that fit their
/// shapes, and no name may be there twice. Throws `InvalidArgument` (this rank) with file, place, found, expected.
ArrayHeader read_safetensors(const InputFile& file, const std::string& path, std::string& member);

}  // namespace attnreg
