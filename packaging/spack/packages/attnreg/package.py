# UNTESTED: Debian has no Spack; only the syntax of this file has been checked.

from spack.package import *


class Attnreg(CMakePackage):
    """Attention regression on many cores and many nodes: finds x so that softmax(A x) reproduces a distribution b."""

    homepage = "https://arxiv.org/abs/2304.10411"
    # No archive yet: `spack dev-build attnreg@0.2.0` in a checkout, or `spack develop`.
    version("main", branch="main")
    version("0.2.0")
    has_code = True
    license("BSD-3-Clause")

    variant("native", default=False, description="Compile for the CPU of the build machine")
    variant("hdf5", default=True, description="Read HDF5 files")
    variant("shared", default=True, description="Build a shared library")

    depends_on("cmake@3.25:", type="build")
    depends_on("pkgconfig", type="build")
    depends_on("mpi")
    depends_on("eigen@3.4:")
    # attnreg never calls BLAS from two threads at once, and has threads of its own.
    depends_on("openblas threads=none")
    depends_on("scalapack")
    depends_on("boost@1.74: +context+program_options")
    depends_on("nlohmann-json@3.11:")
    depends_on("highway@1:")
    depends_on("libzip")
    depends_on("zlib-api")
    depends_on("hdf5", when="+hdf5")
    depends_on("random123")
    depends_on("tomlplusplus")

    requires("%gcc@12:", "%clang@16:", policy="one_of", msg="attnreg is written in C++20")

    def cmake_args(self):
        return [
            self.define_from_variant("ATTNREG_NATIVE", "native"),
            self.define_from_variant("ATTNREG_HDF5", "hdf5"),
            self.define_from_variant("BUILD_SHARED_LIBS", "shared"),
            self.define("ATTNREG_BUILD_TESTS", False),
        ]
