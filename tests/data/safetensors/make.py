"""Makes the files of this directory with the library safetensors (PyPI; made with 0.8.0), which the tests do not need:
PYTHON make.py, where NumPy, safetensors and ml_dtypes are."""

import pathlib

import ml_dtypes
import numpy as np
import safetensors.numpy

here = pathlib.Path(__file__).parent
generator = np.random.default_rng(1)
types = ("f8", "f4", "f2", "i8", "i4", "i2", "i1", "u8", "u4", "u2", "u1", "?")
arrays = {f"layer.{k}.{dtype.strip('?') or 'bool'}": (100 * generator.random((17, 3))).astype(dtype)
          for k, dtype in enumerate(types)}
arrays |= {"layer.bfloat16": generator.standard_normal((2, 9, 4)).astype(ml_dtypes.bfloat16),
           "vector": generator.standard_normal(40), "scalar": np.array(2.5), "none": np.zeros((0, 3), "f4"),
           "a name with blanks:and/more": np.eye(3), "one.row": generator.random((1, 30)).astype("f2"),
           "heads": generator.integers(-9, 9, (2, 3, 8, 2)).astype("i2")}
safetensors.numpy.save_file(arrays, here / "all.safetensors", metadata={"format": "np", "by": "make.py"})
safetensors.numpy.save_file({"only": arrays["vector"].reshape(8, 5)}, here / "one.safetensors")
read = safetensors.numpy.load_file(here / "all.safetensors")
np.savez_compressed(here / "read.npz", **{name.replace("/", "|"): array.astype("f4" if "bfloat16" in name else array.dtype)
                                          for name, array in read.items()})
