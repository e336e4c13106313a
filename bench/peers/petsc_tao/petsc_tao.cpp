// PETSc/TAO over MPI.
//
// usage: mpirun -n RANKS petsc_tao -dir DIR [-rtol 1e-10] [-time_limit 60] [-x0 FILE] [-out FILE] [-dense_hessian]
//        [any option of TAO, KSP or PC, as -tao_type ntr]
// -dense_hessian: the Hessian is formed by dsyrk and factorised on every rank; for -tao_type nls (bnls replaces the
// preconditioner).
#include "tao_problem.hpp"

namespace peers {
namespace {

struct TaoSettings {
  std::string directory = ".", x0, out;
  PetscReal rtol = 1e-10, time_limit = 60;
  PetscBool dense_hessian = PETSC_FALSE;
};

PetscErrorCode read_string(const char* name, std::string& text) {
  char buffer[4096] = "";
  PetscBool given = PETSC_FALSE;
  PetscCall(PetscOptionsGetString(nullptr, nullptr, name, buffer, sizeof buffer, &given));
  if (given) text = buffer;
  return 0;
}

PetscErrorCode read_settings(TaoSettings& settings) {
  PetscCall(read_string("-dir", settings.directory));
  PetscCall(read_string("-x0", settings.x0));
  PetscCall(read_string("-out", settings.out));
  PetscCall(PetscOptionsGetReal(nullptr, nullptr, "-rtol", &settings.rtol, nullptr));
  PetscCall(PetscOptionsGetReal(nullptr, nullptr, "-time_limit", &settings.time_limit, nullptr));
  PetscCall(PetscOptionsGetBool(nullptr, nullptr, "-dense_hessian", &settings.dense_hessian, nullptr));
  return 0;
}

PetscErrorCode set_default(const char* name, const char* text) {
  PetscBool given = PETSC_FALSE;
  PetscCall(PetscOptionsHasName(nullptr, nullptr, name, &given));
  if (!given) PetscCall(PetscOptionsSetValue(nullptr, name, text));
  return 0;
}

struct StopTest {
  const TaoProblem& problem;
  const TaoSettings& settings;

  static PetscErrorCode test(Tao tao, void* context) {
    const auto* self = static_cast<const StopTest*>(context);
    PetscReal value = 0, gradient_norm = 0, constraints = 0, step = 0;
    PetscInt iteration = 0;
    TaoConvergedReason reason = TAO_CONTINUE_ITERATING;
    PetscCall(TaoGetSolutionStatus(tao, &iteration, &value, &gradient_norm, &constraints, &step, &reason));
    double seconds = self->problem.progress.seconds();
    MPI_Bcast(&seconds, 1, MPI_DOUBLE, 0, PetscObjectComm((PetscObject)tao));
    if (std::isnan(value) || std::isnan(gradient_norm))
      reason = TAO_DIVERGED_NAN;
    else if (gradient_norm <= self->settings.rtol)
      reason = TAO_CONVERGED_GTTOL;  // TAO sees g / |g(0)|
    else if (seconds > self->settings.time_limit)
      reason = TAO_DIVERGED_USER;
    PetscCall(TaoSetConvergedReason(tao, reason));
    return 0;
  }
};

PetscErrorCode configure(Tao tao, TaoProblem& problem, StopTest& stop, Vec x, Mat H) {
  PetscCall(TaoSetType(tao, TAOLMVM));
  PetscCall(TaoSetSolution(tao, x));
  PetscCall(TaoSetObjective(tao, TaoProblem::value, &problem));
  PetscCall(TaoSetGradient(tao, nullptr, TaoProblem::gradient, &problem));
  PetscCall(TaoSetObjectiveAndGradient(tao, nullptr, TaoProblem::value_and_gradient, &problem));
  PetscCall(TaoSetHessian(tao, H, H, TaoProblem::hessian, &problem));
  PetscCall(TaoSetConvergenceTest(tao, StopTest::test, &stop));
  PetscCall(TaoSetTolerances(tao, 0, 0, 0));
  PetscCall(TaoSetMaximumIterations(tao, 1000000));
  PetscCall(TaoSetMaximumFunctionEvaluations(tao, 10000000));
  if (stop.settings.dense_hessian) {
    PetscCall(set_default("-tao_nls_ksp_type", "preonly"));
    PetscCall(set_default("-tao_bnk_ksp_type", "preonly"));
  } else {  // PETSc's own default needs the entries of H
    PetscCall(set_default("-tao_nls_pc_type", "none"));
    PetscCall(set_default("-tao_ntr_pc_type", "none"));
    PetscCall(set_default("-tao_ntl_pc_type", "none"));
  }
  PetscCall(TaoSetFromOptions(tao));
  KSP ksp = nullptr;
  PetscCall(TaoGetKSP(tao, &ksp));
  if (stop.settings.dense_hessian && ksp != nullptr) {
    PC preconditioner = nullptr;
    PetscCall(KSPGetPC(ksp, &preconditioner));
    PetscCall(problem.use_factors(preconditioner));
  }
  return 0;
}

PetscErrorCode report_run(Tao tao, TaoProblem& problem, const TaoSettings& settings, Report report) {
  PetscReal value = 0, gradient_norm = 0, constraints = 0, step = 0;
  PetscInt iterations = 0;
  TaoConvergedReason reason = TAO_CONTINUE_ITERATING;
  TaoType type = nullptr;
  PetscCall(TaoGetSolutionStatus(tao, &iterations, &value, &gradient_norm, &constraints, &step, &reason));
  PetscCall(TaoGetType(tao, &type));
  report.peer = "tao-" + std::string(type) + (settings.dense_hessian ? "-dense" : "");
  report.iterations = iterations;
  report.ranks = problem.size();
  report.evaluations = problem.evaluations, report.reads = problem.reads;
  report.hessian_products = problem.hessian_products, report.hessians = problem.hessians;

  Vec x = nullptr;
  PetscCall(TaoGetSolution(tao, &x));
  problem.evaluate(x);  // what the x that is returned really gives
  report.value = problem.point().value, report.gradient_norm = norm(problem.point().gradient);
  if (report.gradient_norm <= settings.rtol * problem.progress.reference)
    report.status = "converged";
  else if (reason == TAO_DIVERGED_USER || problem.late)
    report.status = "time limit";
  else
    report.status = std::string("stalled: ") + TaoConvergedReasons[reason];
  double totals[2] = {report.cpu, peak_memory_mb()};
  MPI_Allreduce(MPI_IN_PLACE, totals, 2, MPI_DOUBLE, MPI_SUM, PETSC_COMM_WORLD);
  report.cpu = totals[0], report.memory_mb = totals[1];
  const Vector solution = problem.gather(x);
  if (problem.rank() == 0 && !settings.out.empty()) npy::write(settings.out, solution);
  if (problem.rank() == 0) report.print(problem.local(), problem.progress);
  return 0;
}

PetscErrorCode run() {
  TaoSettings settings;
  PetscCall(read_settings(settings));
  Report report;
  const double begin = now();
  TaoProblem problem(PETSC_COMM_WORLD, settings.directory, settings.dense_hessian);
  Vec x = nullptr;
  Mat H = nullptr;
  Tao tao = nullptr;
  PetscCall(problem.create_vector(&x));
  PetscCall(problem.create_hessian(&H));
  PetscCall(TaoCreate(PETSC_COMM_WORLD, &tao));
  StopTest stop{problem, settings};
  PetscCall(configure(tao, problem, stop, x, H));
  report.load_seconds = now() - begin;

  PetscCall(VecSet(x, 0));
  problem.evaluate(x);
  const double reference = norm(problem.point().gradient);
  const std::size_t d = std::size_t(problem.local().d);
  if (!settings.x0.empty()) PetscCall(problem.scatter(npy::read_vector(settings.x0, d), 1, x));
  problem.forget();
  MPI_Barrier(PETSC_COMM_WORLD);
  problem.time_limit = settings.time_limit;
  problem.progress.start(reference);
  PetscCall(PetscPushErrorHandler(PetscIgnoreErrorHandler, nullptr));
  const PetscErrorCode error = TaoSolve(tao);
  PetscCall(PetscPopErrorHandler());
  if (error != 0 && !problem.late) SETERRQ(PETSC_COMM_WORLD, error, "TaoSolve failed");
  MPI_Barrier(PETSC_COMM_WORLD);
  report.seconds = problem.progress.seconds(), report.cpu = problem.progress.cpu();
  PetscCall(report_run(tao, problem, settings, report));

  if (problem.late) return 0;  // TAO and its KSP are in the middle of a step: not to be destroyed
  PetscCall(TaoDestroy(&tao));
  PetscCall(MatDestroy(&H));
  PetscCall(VecDestroy(&x));
  return 0;
}

}  // namespace
}  // namespace peers

int main(int argc, char** argv) {
  PetscCall(PetscInitialize(&argc, &argv, nullptr, nullptr));
  try {
    PetscCall(peers::run());
  } catch (const std::exception& error) {
    std::fprintf(stderr, "petsc_tao: %s\n", error.what());
    MPI_Abort(PETSC_COMM_WORLD, 2);
  }
  PetscCall(PetscFinalize());
  return 0;
}
