// The problem as TAO sees it: rows of A distributed over the ranks, x in a PETSc vector, callbacks.
//
// The rows stay outside PETSc: the kernels read A once where MatMult and MatMultTranspose of MATMPIDENSE read it twice.
// TAO is given L / |g(0)|, because several of its solvers have absolute thresholds.
#pragma once
#include <petsctao.h>

#include "../kernels/run.hpp"

extern "C" {
void dpotrf_(const char*, const int*, double*, const int*, int*);
void dpotrs_(const char*, const int*, const int*, const double*, const int*, double*, const int*, int*);
void dsytrf_(const char*, const int*, double*, const int*, int*, double*, const int*, int*);
void dsytrs_(const char*, const int*, const int*, const double*, const int*, const int*, double*, const int*, int*);
}

namespace peers {

class TaoProblem {
 public:
  // Collective.
  TaoProblem(MPI_Comm comm, const std::string& directory, bool dense_hessian)
      : comm_(comm),
        rank_(rank_of(comm)),
        size_(size_of(comm)),
        dense_hessian_(dense_hessian),
        local_(Problem::load(directory, rank_, size_)) {}

  // Collective. A vector of d entries; all vectors have its layout.
  PetscErrorCode create_vector(Vec* x) {
    PetscCall(VecCreateMPI(comm_, PETSC_DECIDE, local_.d, x));
    PetscInt begin = 0, end = 0;
    PetscCall(VecGetOwnershipRange(*x, &begin, &end));
    own_begin_ = int(begin), own_size_ = int(end - begin);
    sizes_.resize(std::size_t(size_)), begins_.resize(std::size_t(size_));
    MPI_Allgather(&own_size_, 1, MPI_INT, sizes_.data(), 1, MPI_INT, comm_);
    MPI_Allgather(&own_begin_, 1, MPI_INT, begins_.data(), 1, MPI_INT, comm_);
    return 0;
  }

  // Collective. The Hessian as a shell matrix.
  PetscErrorCode create_hessian(Mat* H) {
    PetscCall(MatCreateShell(comm_, own_size_, own_size_, local_.d, local_.d, this, H));
    PetscCall(MatShellSetOperation(*H, MATOP_MULT, (void (*)(void))multiply_hessian));
    PetscCall(MatShellSetOperation(*H, MATOP_MULT_TRANSPOSE, (void (*)(void))multiply_hessian));
    PetscCall(MatShellSetOperation(*H, MATOP_GET_DIAGONAL, (void (*)(void))hessian_diagonal));
    PetscCall(MatSetOption(*H, MAT_SYMMETRIC, PETSC_TRUE));
    return 0;
  }

  // Collective. The dense Hessian's factors as preconditioner, the same on every rank.
  PetscErrorCode use_factors(PC preconditioner) {
    PetscCall(PCSetType(preconditioner, PCSHELL));
    PetscCall(PCShellSetContext(preconditioner, this));
    PetscCall(PCShellSetSetUp(preconditioner, factorise));
    PetscCall(PCShellSetApply(preconditioner, apply_factors));
    return 0;
  }

  // Collective. Evaluates at x unless x is the last point; one read of A.
  void evaluate(Vec x) {
    const Vector full = gather(x);
    if (full == x_) return;
    x_ = full;
    ++evaluations, ++reads;
    const SoftmaxSums mine = local_.softmax_pass(x_.data());
    SoftmaxSums sums = mine;
    MPI_Allreduce(&mine.maximum, &sums.maximum, 1, MPI_DOUBLE, MPI_MAX, comm_);
    const double maximum = sums.maximum;
    sums.maximum = mine.maximum;
    sums.rescale(maximum);
    double numbers[4] = {sums.e, sums.e_squared, sums.e_target, sums.penalty};
    reduce(numbers, 4), reduce(sums.columns.data(), int(sums.columns.size()));
    sums.e = numbers[0], sums.e_squared = numbers[1], sums.e_target = numbers[2], sums.penalty = numbers[3];
    const ResidualSums residual = local_.normalise(maximum, sums.e);
    double residuals[2] = {residual.squared, residual.fitted};
    reduce(residuals, 2);
    point_.set(sums, {residuals[0], residuals[1]});
    if (progress.reference > 0) progress.record(norm(point_.gradient), reads);
  }

  // Forgets the last point and the counts, before the clock starts.
  void forget() {
    x_.clear();
    evaluations = 0, reads = 0;
  }

  static PetscErrorCode value(Tao, Vec x, PetscReal* value, void* context) {
    auto* self = static_cast<TaoProblem*>(context);
    self->evaluate(x);
    *value = self->scale() * self->point_.value;
    return 0;
  }

  static PetscErrorCode gradient(Tao, Vec x, Vec g, void* context) {
    auto* self = static_cast<TaoProblem*>(context);
    self->evaluate(x);
    return self->scatter(self->point_.gradient, self->scale(), g);
  }

  static PetscErrorCode value_and_gradient(Tao tao, Vec x, PetscReal* value, Vec g, void* context) {
    PetscCall(TaoProblem::value(tao, x, value, context));
    return gradient(tao, x, g, context);
  }

  static PetscErrorCode hessian(Tao, Vec x, Mat H, Mat, void* context) {
    auto* self = static_cast<TaoProblem*>(context);
    self->evaluate(x);
    self->local_.set_hessian_diagonal(self->point_.s);
    if (self->dense_hessian_) self->form_hessian();
    // The final assembly of a shell matrix also drops the shift that TAO may have put on it.
    PetscCall(MatAssemblyBegin(H, MAT_FINAL_ASSEMBLY));
    PetscCall(MatAssemblyEnd(H, MAT_FINAL_ASSEMBLY));
    return 0;
  }

  const Problem& local() const { return local_; }
  const Point& point() const { return point_; }
  int rank() const { return rank_; }
  int size() const { return size_; }
  double scale() const { return progress.reference > 0 ? 1 / progress.reference : 1; }

  // Collective. All entries of x, on every rank.
  Vector gather(Vec x) const {
    Vector full(std::size_t(local_.d));
    const PetscScalar* own = nullptr;
    VecGetArrayRead(x, &own);
    MPI_Allgatherv(own, own_size_, MPI_DOUBLE, full.data(), sizes_.data(), begins_.data(), MPI_DOUBLE, comm_);
    VecRestoreArrayRead(x, &own);
    return full;
  }

  // Local. y = factor full
  PetscErrorCode scatter(const Vector& full, double factor, Vec y) const {
    PetscScalar* own = nullptr;
    PetscCall(VecGetArray(y, &own));
    for (int k = 0; k < own_size_; ++k) own[k] = factor * full[std::size_t(own_begin_ + k)];
    PetscCall(VecRestoreArray(y, &own));
    return 0;
  }

  Progress progress;
  double time_limit = std::numeric_limits<double>::infinity();
  bool late = false;  // a Hessian product ended the solve: TAO itself looks at the clock only once an iteration
  long evaluations = 0, hessian_products = 0, hessians = 0;
  double reads = 0;

 private:
  static int rank_of(MPI_Comm comm) {
    int rank = 0;
    MPI_Comm_rank(comm, &rank);
    return rank;
  }

  static int size_of(MPI_Comm comm) {
    int size = 0;
    MPI_Comm_size(comm, &size);
    return size;
  }

  void reduce(double* numbers, int count) const {
    MPI_Allreduce(MPI_IN_PLACE, numbers, count, MPI_DOUBLE, MPI_SUM, comm_);
  }

  void form_hessian() {
    H_.resize(std::size_t(local_.d) * std::size_t(local_.d));
    local_.gram_pass(H_.data());
    ++hessians, ++reads;
    reduce(H_.data(), int(H_.size()));
    point_.add_low_rank(H_.data());
    for (double& entry : H_) entry *= scale();
  }

  static PetscErrorCode multiply_hessian(Mat H, Vec p, Vec y) {
    TaoProblem* self = nullptr;
    PetscCall(MatShellGetContext(H, &self));
    const int d = self->local_.d;
    const Vector full = self->gather(p);
    Vector product(full.size());
    ++self->hessian_products;
    if (self->dense_hessian_) {
      cblas_dsymv(CblasRowMajor, CblasLower, d, 1, self->H_.data(), d, full.data(), 1, 0, product.data(), 1);
      return self->scatter(product, 1, y);
    }
    self->local_.curvature_pass(full.data(), product.data());
    ++self->reads;
    product.push_back(self->rank_ == 0 && self->progress.seconds() > self->time_limit);
    self->reduce(product.data(), d + 1);
    self->late = product.back() > 0;
    if (self->late) return PETSC_ERR_USER;
    product.pop_back();
    self->point_.add_low_rank_product(full.data(), product.data());
    return self->scatter(product, self->scale(), y);
  }

  static PetscErrorCode hessian_diagonal(Mat H, Vec y) {
    TaoProblem* self = nullptr;
    PetscCall(MatShellGetContext(H, &self));
    const std::size_t d = std::size_t(self->local_.d);
    Vector diagonal(d);
    if (self->dense_hessian_) {
      for (std::size_t k = 0; k < d; ++k) diagonal[k] = self->H_[k * (d + 1)];
      return self->scatter(diagonal, 1, y);
    }
    self->local_.diagonal_pass(diagonal.data());
    ++self->reads;
    self->reduce(diagonal.data(), int(d));
    const Point& point = self->point_;
    for (std::size_t k = 0; k < d; ++k) diagonal[k] += point.Af[k] * (point.t * point.Af[k] - 2 * point.Av[k]);
    return self->scatter(diagonal, self->scale(), y);
  }

  // Cholesky, or Bunch-Kaufman where H + shift I is indefinite. The shift that TAO put on the shell matrix is read off
  // its diagonal.
  static PetscErrorCode factorise(PC preconditioner) {
    TaoProblem* self = nullptr;
    Mat H = nullptr;
    Vec diagonal = nullptr;
    PetscCall(PCShellGetContext(preconditioner, &self));
    PetscCall(PCGetOperators(preconditioner, &H, nullptr));
    PetscCall(MatCreateVecs(H, &diagonal, nullptr));
    PetscCall(MatGetDiagonal(H, diagonal));
    const double shift = self->gather(diagonal).front() - self->H_.front();
    PetscCall(VecDestroy(&diagonal));

    const int d = self->local_.d, work_size = 64 * d;
    int info = 0;
    self->copy_shifted(shift);
    dpotrf_("U", &d, self->factor_.data(), &d, &info);  // lower in row order is upper in column order
    self->definite_ = info == 0;
    if (!self->definite_) {
      self->copy_shifted(shift);
      self->pivots_.resize(std::size_t(d));
      Vector work(static_cast<std::size_t>(work_size));
      dsytrf_("U", &d, self->factor_.data(), &d, self->pivots_.data(), work.data(), &work_size, &info);
    }
    return 0;
  }

  void copy_shifted(double shift) {
    factor_ = H_;
    for (std::size_t k = 0; k < factor_.size(); k += std::size_t(local_.d) + 1) factor_[k] += shift;
  }

  static PetscErrorCode apply_factors(PC preconditioner, Vec b, Vec y) {
    TaoProblem* self = nullptr;
    PetscCall(PCShellGetContext(preconditioner, &self));
    Vector full = self->gather(b);
    const int d = self->local_.d, one = 1;
    int info = 0;
    if (self->definite_)
      dpotrs_("U", &d, &one, self->factor_.data(), &d, full.data(), &d, &info);
    else
      dsytrs_("U", &d, &one, self->factor_.data(), &d, self->pivots_.data(), full.data(), &d, &info);
    return self->scatter(full, 1, y);
  }

  MPI_Comm comm_;
  int rank_, size_;
  bool dense_hessian_;
  Problem local_;
  Point point_;
  int own_begin_ = 0, own_size_ = 0;  // of vectors with d entries
  std::vector<int> sizes_, begins_;
  Vector x_, H_, factor_;
  std::vector<int> pivots_;
  bool definite_ = true;
};

}  // namespace peers
