"""Matrices that are refused: code 3 on 1, 2 and 3 ranks, with file, place, found and expected."""

import io
import unittest
import zipfile

import numpy as np

from source_files import SourceTest, write_safetensors

try:
    import scipy.sparse
except ImportError:
    scipy = None


class BadFilesTest(SourceTest):
    """What is refused: code 3 on all ranks, with file, place, what was found, and what was expected or helps."""

    def test_types_that_are_no_numbers(self):
        for name, dtype, text in (("complex", "c16", "a.real, a.imag"), ("complex64", "c8", "a.real, a.imag"),
                                  ("object", "O", "dtype='<f8'"), ("text", "U3", "dtype='<f8'"),
                                  ("bytes", "S8", "dtype='<f8'"), ("time", "M8[s]", "dtype='<f8'"),
                                  ("long", "f16", "dtype='<f8'"), ("structured", [("x", "f8")], "a['field']")):
            array = np.zeros((4, 2), dtype)
            np.save(self.path(f"{name}.npy"), array, allow_pickle=True)
            self.refused(f"{name}.npy", f"{name}.npy", "expected", text)
            np.savez(self.path(f"{name}.npz"), a=array, b=array)
            self.refused(f"{name}.npz:a", f"{name}.npz", "expected", text)
        self.check_all()

    def test_names(self):
        np.savez(self.path("a.npz"), keys=np.eye(2), values=np.eye(2))
        np.savez(self.path("empty.npz"))
        np.save(self.path("a.npy"), np.zeros((3, 2, 2)))
        write_safetensors(self.path("a.safetensors"), {"layer.1.q": np.eye(2), "layer.1.k": np.eye(2)})
        self.refused("a.npz", "2 arrays", "expected the name of one", "keys, values")
        self.refused("empty.npz", "0 arrays")
        self.refused("a.npz:kyes", "no array 'kyes'", "found keys, values")
        self.refused("a.npz:keys[0,0]", "(2, 2)", "fewer places")
        self.refused("a.npz:keys[5]", "no part 5 of 2")
        self.refused("a.npy:keys", "without a name", "leave out ':keys'")
        self.refused("a.npy", "(3, 2, 2)", "expected a matrix")
        self.refused("a.npy[3]", "no part 3 of 3", "counted from 0")
        self.refused("a.npy[1,1,1]", "fewer places")
        self.refused("a.npy[-1]", "No such file")
        self.refused("a.npy[1", "No such file")
        self.refused("a.npy[]", "No such file")
        self.refused("a.safetensors", "2 tensors", "expected the name of one", "layer.1.q, layer.1.k")
        self.refused("a.safetensors:layer.1", "no tensor 'layer.1'", "found layer.1.q, layer.1.k")
        self.refused("a.safetensors:", "No such file")
        self.refused("none.npz:keys", "No such file")
        self.path("a.h5").write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(100))
        self.refused("a.h5", "HDF5")
        if scipy:
            scipy.sparse.save_npz(self.path("s.npz"), scipy.sparse.eye(4).tocsr())
            self.refused("s.npz:keys", "no array 'keys'", "found indices")
            self.refused("s.npz:data[1]", "fewer places")
        self.check_all()

    def test_shards(self):
        for k in (0, 1, 3):
            np.save(self.path(f"gap.{k}.npy"), np.eye(2))
        self.refused("gap.%d.npy", "number 2 is missing", "gap.1.npy", "gap.3.npy")
        for name, array in (("wide", np.ones((2, 3))), ("type", np.ones((2, 2), "f4")), ("axes", np.ones(2)),
                            ("none", np.float64(1)), ("text", np.ones((2, 2), "U1"))):
            np.save(self.path(f"{name}.0.npy"), np.eye(2))
            np.save(self.path(f"{name}.1.npy"), array)
            self.refused(f"{name}.*.npy", f"{name}.1.npy", "expected" if name in ("none", "text") else f"{name}.0.npy")
        for text in ("1", "01"):
            np.save(self.path(f"order.{text}.npy"), np.eye(2))
        self.refused("order.*.npy", "order", "not clear")
        self.path("damaged.0.npy").write_bytes(b"x")
        self.refused("damaged.*.npy", "damaged.0.npy")
        self.refused("absent.*.npy", "no file has such a name", "quote")
        self.refused("gap.*.npy[0]", "pattern")
        self.refused("nowhere/a.*.npy", "directory")
        self.check_all()

    def test_archives(self):
        array = np.random.default_rng(1).standard_normal((500, 4))
        for save, name in ((np.savez, "stored"), (np.savez_compressed, "deflated")):
            save(self.path("a.npz"), a=array)
            whole = self.path("a.npz").read_bytes()
            for k, size in enumerate((0, 1, 21, len(whole) // 2, len(whole) - 1)):
                self.path(f"{name}{k}.npz").write_bytes(whole[:size])
                self.refused(f"{name}{k}.npz", f"{name}{k}.npz")
            damaged = bytearray(whole)
            damaged[5000] ^= 0x55
            self.path(f"{name}-damaged.npz").write_bytes(damaged)
            # Which checksum tells depends on who reads the end; a stored array has one for the whole only.
            if name == "deflated":
                self.refused(f"{name}-damaged.npz", "damaged")
        member = io.BytesIO()
        np.save(member, array)
        for name, contents in (("short", member.getvalue()[:-8]), ("long", member.getvalue() + b"x"), ("none", b"")):
            with zipfile.ZipFile(self.path(f"{name}.npz"), "w") as archive:
                archive.writestr("a.npy", contents)
            self.refused(f"{name}.npz", "a.npy", "bytes" if contents else "empty")
        with zipfile.ZipFile(self.path("lzma.npz"), "w", zipfile.ZIP_LZMA) as archive:
            archive.writestr("a.npy", member.getvalue())
        self.refused("lzma.npz", "method 14", "expected stored or deflated")
        self.check_all()

    @unittest.skipUnless(scipy, "without SciPy")
    def test_sparse(self):
        dense = np.where(np.random.default_rng(2).random((12, 6)) < 0.5, 1.5, 0)
        for kind in ("csr", "csc", "coo", "bsr", "dia"):
            matrix = scipy.sparse.csr_matrix(dense)
            scipy.sparse.save_npz(self.path("a.npz"), matrix.tobsr((4, 3)) if kind == "bsr" else matrix.asformat(kind))
            arrays = dict(np.load(self.path("a.npz")))

            def change(name, text, **others):
                np.savez(self.path(f"{kind}-{name}.npz"), **{key: value for key, value in {**arrays, **others}.items()
                                                            if value is not None})
                self.refused(f"{kind}-{name}.npz", f"{kind}-{name}.npz", text)

            for key in arrays:
                change(f"without-{key}", f"no array '{key}'" if key != "format" or kind in ("csr", "csc", "bsr") else "",
                       **{key: None})
                if key not in ("format", "data"):
                    change(f"floats-{key}", "expected <i4 or <i8", **{key: arrays[key].astype(float)})
                    change(f"axes-{key}", "shape", **{key: arrays[key][None]})
            change("complex", "c16", data=arrays["data"].astype(complex))
            change("vector", "shape", data=np.ones((2, 2, 2, 2)))
            change("shape", "expected at least one row", shape=np.array([0, 6]))
            change("huge", "expected", shape=np.array([2**61, 6]))
            change("nan", "not finite", data=np.full(arrays["data"].shape, np.nan))
            change("format", "expected csr, csc, coo, bsr or dia", format=np.array(b"lil"))
            for key in ("indices", "row", "col"):
                if key not in arrays:
                    continue
                for name, value in (("large", 99), ("negative", -1)):
                    wrong = arrays[key].copy()
                    wrong[1] = value
                    change(f"{name}-{key}", str(value), **{key: wrong})
                change(f"short-{key}", "shape", **{key: arrays[key][:-1]})
            if "indptr" in arrays:
                for name, place, value in (("start", 0, 1), ("falls", 1, 10**6), ("end", -1, 0)):
                    wrong = arrays["indptr"].copy()
                    wrong[place] = value
                    change(f"indptr-{name}", "indptr", indptr=wrong)
        self.check_all()

    def test_safetensors(self):
        good = {"a": np.arange(12.0).reshape(4, 3), "b": np.ones((2, 2), "f4")}
        write_safetensors(self.path("good"), good)
        whole = self.path("good").read_bytes()
        length = int.from_bytes(whole[:8], "little")
        text, data = whole[8:8 + length].decode(), whole[8 + length:]

        def write(name, *texts, header=text, rest=data, said=None, tensor="a"):
            encoded = header.encode() if isinstance(header, str) else header
            said = len(encoded) if said is None else said
            self.path(f"{name}.safetensors").write_bytes(said.to_bytes(8, "little") + encoded + rest)
            self.refused(f"{name}.safetensors:{tensor}", f"{name}.safetensors", *texts)

        for size in (0, 5, 8, 20, len(whole) - 1):
            self.path(f"cut{size}.safetensors").write_bytes(whole[:size])
            self.refused(f"cut{size}.safetensors:a", f"cut{size}.safetensors", "expected")
        write("surplus", "bytes of data", rest=data + b"x")
        write("long", "expected 2 to", said=2**63)
        write("longer", "expected 2 to", said=len(whole))
        write("list", "expected '{'", header="[1]     ")
        write("open", "not JSON", header=text.rstrip()[:-1])
        write("nul", "not JSON", header=text.rstrip() + "\0" * 8)
        write("binary", "not JSON", header=text.encode().replace(b'"b"', b'"\xff"'))
        write("twice", "twice", header=text.replace('"b"', '"a"'))
        write("key", "unknown key 'shpe'", header=text.replace("shape", "shpe"))
        write("type", "type F99", "expected F16", header=text.replace("F64", "F99"))
        write("complex", "type C64", "expected F16", header=text.replace("F64", "C64"))
        write("float8", "type F8_E4M3", "expected F16", header=text.replace("F64", "F8_E4M3"))
        write("shape", "data_offsets", "expected", header=text.replace("[4,3]", "[4,4]"))
        write("wraps", "2^63", header=text.replace("[4,3]", "[4294967296,4294967296,4294967296]"))
        write("above", "2^63", header=text.replace("[4,3]", "[18446744073709551615]"))
        write("negative", "negative", header=text.replace("[4,3]", "[-4,-3]"))
        write("fraction", "no integer", header=text.replace("[4,3]", "[4.0,3]"))
        write("nested", "a list", header=text.replace("[4,3]", "[[4,3]]"))
        write("deep", "a list", header=text.replace("[4,3]", "[" * 100_000))
        write("object", "an object", header=text.replace("[4,3]", '{"x":{}}'))
        write("word", "a text", header=text.replace("[4,3]", '"4,3"'))
        write("null", "null", header=text.replace("[4,3]", "null"))
        write("offsets", "data_offsets", header=text.replace("[0,96]", "[0]"))
        write("overlap", "data_offsets", "expected to begin at", header=text.replace("[96,112]", "[88,112]"))
        write("gap", "data_offsets", "expected to begin at", header=text.replace("[96,112]", "[97,112]"))
        write("reversed", "data_offsets", header=text.replace("[96,112]", "[96,80]"))
        write("outside", "data_offsets", header=text.replace("[96,112]", f"[96,{2**62}]"))
        write("empty", "no tensor 'a'", header="{}      ", rest=b"")
        write("not-finite", "row 0, column 1 is nan", "1 value is not finite",
              rest=np.array([0, np.nan]).tobytes() + data[16:])
        self.check_all()


if __name__ == "__main__":
    unittest.main()
