# Debian has several OpenBLAS, each in a directory of its own; when a program starts, alternatives choose one for both
# libopenblas.so.0 and the libblas.so.3 that ScaLAPACK takes. pkg-config names one of the directories, which would stand in
# the RUNPATH of what is built: after another choice, a program would begin with parts of two that do not fit together.
# So PkgConfig::OPENBLAS becomes the name outside of that directory, where it is one of the same library.
find_library(attnreg_openblas openblas NO_CACHE)
get_target_property(attnreg_openblas_found PkgConfig::OPENBLAS INTERFACE_LINK_LIBRARIES)
if(attnreg_openblas AND EXISTS "${attnreg_openblas_found}")
  file(REAL_PATH "${attnreg_openblas}" attnreg_openblas_file)
  file(REAL_PATH "${attnreg_openblas_found}" attnreg_openblas_found)
  if(attnreg_openblas_file STREQUAL attnreg_openblas_found)
    set_target_properties(PkgConfig::OPENBLAS PROPERTIES INTERFACE_LINK_LIBRARIES "${attnreg_openblas}")
  endif()
endif()
