"""Reads many matrices in one job: the files of a test, and what the reader makes of them."""

import json
import os
import subprocess

import numpy as np

from command_line import MPIRUN, TIMEOUT_SECONDS, CommandLineTest

READER = os.environ.get("ATTNREG_SOURCE_READER", "source_reader")
RANKS = (1, 2, 3)


def write_safetensors(path, tensors, metadata=None):
    """As the library of that name writes it: {name: (dtype, array)}, or an array of a type that has such a name."""
    names = {"f8": "F64", "f4": "F32", "f2": "F16", "i8": "I64", "i4": "I32", "i2": "I16", "i1": "I8", "u8": "U64",
             "u4": "U32", "u2": "U16", "u1": "U8", "b1": "BOOL"}
    header, data = {}, b""
    if metadata:
        header["__metadata__"] = metadata
    for name, tensor in tensors.items():
        dtype, array = tensor if isinstance(tensor, tuple) else (names[tensor.dtype.str[1:]], tensor)
        array = np.ascontiguousarray(array)
        header[name] = {"dtype": dtype, "shape": list(array.shape),
                        "data_offsets": [len(data), len(data) + array.nbytes]}
        data += array.tobytes()
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)


def bfloat16(array):
    """The bits of numbers that bfloat16 has, and these numbers."""
    bits = (np.asarray(array, "<f4").view("<u4") >> 16).astype("<u2")
    return bits, (bits.astype("<u4") << 16).view("<f4").astype(float)


class SourceTest(CommandLineTest):
    """Files of one test, each with the array that is to be found in it or the texts of its refusal."""

    def setUp(self):
        super().setUp()
        if "ATTNREG_SOURCE_READER" not in os.environ:
            self.skipTest("without ATTNREG_SOURCE_READER, the reader of the tests")
        self.names, self.wanted = [], []

    def path(self, name):
        return self.directory / name

    def holds(self, name, array):
        """name: as it is given to the program, but for the directory."""
        self.names.append(name)
        self.wanted.append(np.asarray(array, float))

    def refused(self, name, *texts):
        self.names.append(name)
        self.wanted.append(texts)

    def read_all(self, ranks):
        """Line and file of each name."""
        place = lambda name: ("T " if name.startswith("T ") else "") + str(self.path(name.removeprefix("T ")))
        self.path("list").write_text("".join(place(name) + "\n" for name in self.names))
        out = self.path(f"out{ranks}")
        out.mkdir()
        command = [MPIRUN, "-n", str(ranks), READER, self.path("list"), out]
        process = subprocess.run(list(map(str, command)), stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                 stdin=subprocess.DEVNULL, timeout=2 * TIMEOUT_SECONDS, check=False)
        self.assertEqual(0, process.returncode, process.stderr.decode(errors="replace"))
        lines = process.stdout.decode().splitlines()
        self.assertEqual(len(self.names), len(lines), process.stderr.decode(errors="replace"))
        return lines, out

    def check_all(self):
        for ranks in RANKS:
            lines, out = self.read_all(ranks)
            for k, (name, line, wanted) in enumerate(zip(self.names, lines, self.wanted)):
                with self.subTest(name=name, ranks=ranks):
                    if isinstance(wanted, tuple):
                        self.assertEqual("3 ", line[:2], line)
                        for text in wanted:
                            self.assertIn(text, line)
                        continue
                    self.assertEqual("read", line)
                    found = np.load(out / f"{k}.npy")
                    np.testing.assert_array_equal(found, wanted.reshape(len(wanted), -1))
