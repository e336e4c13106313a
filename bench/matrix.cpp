#include "matrix.hpp"

#include <sys/mman.h>

#include <array>
#include <cmath>
#include <cstdlib>
#include <new>

#include "attnreg/files.hpp"
#include "files/source.hpp"
#include "files/sparse_file.hpp"
#include "numbers/random.hpp"
#include "ranks/span_of.hpp"

namespace attnreg::bench {

namespace {

constexpr std::size_t kHugePage = std::size_t{1} << 21;
constexpr std::size_t kChunkWords = 32768;  // 256 KiB, a tile of dense rows

/// Advises huge pages for those that lie in [data, data + bytes); before the memory is touched.
void advise_huge_pages(const void* data, std::size_t bytes) {
  const auto begin = reinterpret_cast<std::uintptr_t>(data), end = begin + bytes;
  const auto first = (begin + kHugePage - 1) / kHugePage * kHugePage, last = end / kHugePage * kHugePage;
  if (first < last) madvise(reinterpret_cast<void*>(first), last - first, MADV_HUGEPAGE);
}

template <class T>
std::shared_ptr<T[]> huge_array(std::int64_t size) {
  const std::size_t bytes = (static_cast<std::size_t>(size) * sizeof(T) / kHugePage + 1) * kHugePage;
  T* data = static_cast<T*>(std::aligned_alloc(kHugePage, bytes));
  if (data == nullptr) throw std::bad_alloc();
  advise_huge_pages(data, bytes);
  return {data, [](T* p) { std::free(p); }};
}

template <class T>
void resize_huge(std::vector<T>& values, std::int64_t size) {
  values.reserve(static_cast<std::size_t>(size));
  advise_huge_pages(values.data(), values.capacity() * sizeof(T));
  values.resize(static_cast<std::size_t>(size));
}

/// Uniform on (-1, 1), a function of the key (splitmix64).
double hashed(std::uint64_t key) {
  key += 0x9e3779b97f4a7c15;
  key = (key ^ (key >> 30)) * 0xbf58476d1ce4e5b9;
  key = (key ^ (key >> 27)) * 0x94d049bb133111eb;
  key ^= key >> 31;
  return static_cast<double>(static_cast<std::int64_t>(key)) * 0x1p-63;
}

template <class T>
std::span<const std::uint64_t> words(const T* data, std::int64_t size) {
  return {reinterpret_cast<const std::uint64_t*>(data), static_cast<std::size_t>(size) * sizeof(T) / 8};
}

}  // namespace

std::string type_name(RowType type) {
  constexpr std::array names{"f64", "f32", "f16", "bf16", "csr"};
  return names[static_cast<std::size_t>(type)];
}

RowType type_by_name(const std::string& name) {
  for (const auto type : {RowType::f64, RowType::f32, RowType::f16, RowType::bf16, RowType::csr})
    if (type_name(type) == name) return type;
  throw InvalidArgument("--type " + name + ": give f64, f32, f16, bf16 or csr", Error::Scope::all_ranks);
}

namespace {

template <class T>
constexpr RowType type_of = std::is_same_v<T, double>        ? RowType::f64
                            : std::is_same_v<T, float>       ? RowType::f32
                            : std::is_same_v<T, Eigen::half> ? RowType::f16
                                                             : RowType::bf16;

/// Calls `use(T{})` for the number type of dense rows.
template <class Use>
BenchMatrix with_type(RowType type, Use&& use) {
  if (type == RowType::f16) return use(Eigen::half{});
  if (type == RowType::bf16) return use(Eigen::bfloat16{});
  return type == RowType::f32 ? use(float{}) : use(double{});
}

double rounded_to(RowType type, double value) {
  if (type == RowType::f16) return static_cast<double>(static_cast<Eigen::half>(value));
  if (type == RowType::bf16) return static_cast<double>(static_cast<Eigen::bfloat16>(value));
  return static_cast<double>(static_cast<float>(value));
}

}  // namespace

template <class T>
BenchMatrix BenchMatrix::over(const Communicator& communicator, RowPartition partition, Index columns,
                              std::shared_ptr<T[]> rows) {
  const std::int64_t size = partition.rows_local(communicator.rank()) * columns;
  BenchMatrix matrix(RowMatrix::view(communicator, std::move(partition), static_cast<const T*>(rows.get()), columns),
                     type_of<T>);
  matrix.dense_ = static_cast<const T*>(rows.get());
  matrix.arrays_ = {words(rows.get(), size)};
  matrix.chunk_words_ = static_cast<std::size_t>(tile_rows(columns) * columns) * sizeof(T) / 8;
  matrix.memory_ = rows;
  return matrix;
}

// Moving the vectors leaves their memory where it is.
BenchMatrix BenchMatrix::over(const Communicator& communicator, RowPartition partition, CsrRows rows) {
  const auto* offsets = rows.offsets.data();
  const auto* indices = rows.indices.data();
  const auto* values = rows.values.data();
  const std::int64_t row_count = rows.rows(), entry_count = rows.entries();
  BenchMatrix matrix(RowMatrix(communicator, std::move(partition), std::move(rows)), RowType::csr);
  matrix.offsets_ = offsets, matrix.indices_ = indices, matrix.doubles_ = values;
  matrix.arrays_ = {words(values, entry_count), words(indices, entry_count), words(offsets, row_count + 1)};
  matrix.chunk_words_ = kChunkWords;
  return matrix;
}

BenchMatrix BenchMatrix::dense(const Communicator& communicator, RowType type, std::int64_t rows, Index columns,
                               RowType rounded) {
  const auto partition = RowPartition::tiled(rows, columns, communicator.size());
  const std::int64_t first = partition.begin(communicator.rank()), local = partition.rows_local(communicator.rank());
  const double scale = std::sqrt(3.0 / static_cast<double>(columns));
  return with_type(type, [&]<class T>(T) {
    const auto array = huge_array<T>(local * columns);
#pragma omp parallel for schedule(static)
    for (std::int64_t i = 0; i < local; ++i)
      for (Index j = 0; j < columns; ++j)
        array[i * columns + j] =
            static_cast<T>(rounded_to(rounded, scale * hashed(static_cast<std::uint64_t>((first + i) * columns + j))));
    return over(communicator, partition, columns, array);
  });
}

BenchMatrix BenchMatrix::sparse(const Communicator& communicator, std::int64_t rows, Index columns, Index nonzeros) {
  if (nonzeros < 1 || nonzeros > columns)
    throw InvalidArgument("--nonzeros: give 1 to the number of columns", Error::Scope::all_ranks);
  const auto partition = RowPartition::tiled(rows, columns, communicator.size());
  const std::int64_t first = partition.begin(communicator.rank()), local = partition.rows_local(communicator.rank());
  CsrRows csr;
  csr.columns = columns;
  resize_huge(csr.offsets, local + 1);
  resize_huge(csr.indices, local * nonzeros);
  resize_huge(csr.values, local * nonzeros);
  const double scale = std::sqrt(3.0 / static_cast<double>(nonzeros));
#pragma omp parallel for schedule(static)
  for (std::int64_t i = 0; i < local; ++i) {
    csr.offsets[static_cast<std::size_t>(i + 1)] = (i + 1) * nonzeros;
    for (Index k = 0; k < nonzeros; ++k) {
      const auto at = static_cast<std::size_t>(i * nonzeros + k);
      const auto key = static_cast<std::uint64_t>((first + i) * nonzeros + k);
      const Index from = columns * k / nonzeros, width = columns * (k + 1) / nonzeros - from;
      const auto place = static_cast<Index>((hashed(~key) + 1) / 2 * static_cast<double>(width));
      csr.indices[at] = static_cast<std::int32_t>(from + std::min(place, width - 1));
      csr.values[at] = scale * hashed(key);
    }
  }
  return over(communicator, partition, std::move(csr));
}

BenchMatrix BenchMatrix::load(const Communicator& communicator, const std::string& directory, RowType type) {
  if (type == RowType::csr) {
    SparseRows loaded = load_sparse(communicator, directory + "/A.npz", StorageChoice::float64);
    CsrRows csr;
    csr.columns = loaded.rows.columns;
    const auto copy = [](auto& to, const auto& from) {
      resize_huge(to, static_cast<std::int64_t>(from.size()));
      std::copy(from.begin(), from.end(), to.begin());
    };
    copy(csr.offsets, loaded.rows.offsets);
    copy(csr.indices, loaded.rows.indices);
    copy(csr.values, loaded.rows.values);
    return over(communicator, std::move(loaded.partition), std::move(csr));
  }
  const Source header = open_source(directory + "/A.npy");
  const Index columns = static_cast<Index>(header.shape[1]);
  const auto partition = RowPartition::tiled(header.shape[0], columns, communicator.size());
  const std::int64_t first = partition.begin(communicator.rank()), local = partition.rows_local(communicator.rank());
  return with_type(type, [&]<class T>(T) {
    const auto array = huge_array<T>(local * columns);
    communicator.agree(
        [&] { read_rows(header, first, local, std::span<T>(array.get(), static_cast<std::size_t>(local * columns))); });
    return over(communicator, partition, columns, array);
  });
}

Eigen::VectorXd normals(Index n, std::uint32_t which) {
  Eigen::VectorXd v(n);
  RandomStream(1, Purpose::spectral_probes).normals(which, span_of(v));
  return v;
}

Eigen::MatrixXd normal_columns(Index n, Index k) {
  Eigen::MatrixXd X(n, k);
  for (Index c = 0; c < k; ++c) X.col(c) = normals(n, static_cast<std::uint32_t>(100 + c));
  return X;
}

}  // namespace attnreg::bench
