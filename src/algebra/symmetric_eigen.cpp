#include "algebra/symmetric_eigen.hpp"

#include <algorithm>
#include <limits>
#include <utility>
#include <vector>

extern "C" void dsyevd_(const char* jobz, const char* uplo, const int* n, double* a, const int* lda, double* w,
                        double* work, const int* work_size, int* iwork, const int* iwork_size, int* info);

namespace attnreg {

SymmetricEigen symmetric_eigen(Eigen::MatrixXd matrix, bool with_vectors) {
  SymmetricEigen result;
  if (matrix.size() == 0 || !matrix.allFinite()) return result;
  const int order = static_cast<int>(matrix.rows()), query = -1;
  const char* job = with_vectors ? "V" : "N";
  int info = 0, integers = 0;
  double doubles = 0;
  result.values.resize(order);
  dsyevd_(job, "L", &order, matrix.data(), &order, result.values.data(), &doubles, &query, &integers, &query, &info);
  const int work_size = static_cast<int>(doubles);
  std::vector<double> work(static_cast<std::size_t>(work_size));
  std::vector<int> iwork(static_cast<std::size_t>(integers));
  dsyevd_(job, "L", &order, matrix.data(), &order, result.values.data(), work.data(), &work_size, iwork.data(),
          &integers, &info);
  result.finite = info == 0 && result.values.allFinite() && matrix.allFinite();
  if (with_vectors) result.vectors = std::move(matrix);
  return result;
}

double eigenvalue_rounding(Eigen::Index d, double size) {
  return static_cast<double>(std::max<Eigen::Index>(d, 16)) * std::numeric_limits<double>::epsilon() * size;
}

}  // namespace attnreg
