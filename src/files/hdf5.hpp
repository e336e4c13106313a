#pragma once

#include <memory>
#include <string>

#include "files/input_file.hpp"
#include "files/source_layout.hpp"

namespace attnreg {

/// Local. Whether a file is HDF5, by its first bytes, or by the end of its name: .h5, .hdf5.
bool is_hdf5(const InputFile& file, const std::string& name);

/// Local. The header of a dataset, whose path in the file is `source.member`, and may be empty if there is only one;
/// the member becomes its full path. Throws `InvalidArgument` (this rank): no such dataset (with those that are there),
/// elements that are no numbers (with the conversion), an external link, a virtual dataset or external storage, a
/// filter that is not built in; or attnreg was built without the library.
///
/// The library reads what a file says without suspicion: files must be from someone who is trusted.
void read_hdf5(Source& source);

/// Local. The bytes of the dataset, as they are in the file, in C order, through hyperslabs.
std::unique_ptr<ArrayBytes> open_hdf5(const Source& source);

}  // namespace attnreg
