"""Reading GGUF files fast gives what gguf and transformers give, and says so where a file is broken."""

from __future__ import annotations

import gc
import importlib
import struct
import subprocess
import sys
import threading
import weakref
from contextlib import nullcontext

import gguf
import numpy as np
import pytest
import torch
from checkpoints import save, write_gguf
from gguf import GGMLQuantizationType, GGUFReader
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from idp.errors import ModelError
from idp.model import gguf_reader
from idp.model.aliases import resolve
from idp.model.gguf_reader import QuickReader, quick_gguf, read_gguf
from idp.model.info import model_info
from idp.model.load import load, load_tokenizer

UINT32, STRING, ARRAY, F32 = 4, 8, 9, 0
FORMATS = dict(zip((0, 1, 2, 3, 4, 5, 6, 7, 10, 11, 12), "BbHhIif?Qqd", strict=True))
HUGE = 1 << 60
CONVERTING = "transformers.modeling_gguf_pytorch_utils"
REPLACED = [(module, name) for module, name, _ in gguf_reader._REPLACED]


def value(kind, content, order):
    """A value as GGUF has it; bytes are taken as they are."""
    if isinstance(content, bytes):
        return content
    if kind == STRING:
        return struct.pack(f"{order}Q", len(content.encode())) + content.encode()
    if kind == ARRAY:
        inner, values = content
        return struct.pack(f"{order}IQ", inner, len(values)) + b"".join(value(inner, each, order) for each in values)
    return struct.pack(f"{order}{FORMATS[kind]}", content)


def packed(fields, tensors=(), order="<"):
    """A GGUF file of any fields `(name, kind, value)`, and of tensors `(name, sizes, kind)` of float32."""
    out = b"GGUF" + struct.pack(f"{order}IQQ", 3, len(tensors), len(fields))
    for name, kind, content in fields:
        out += value(STRING, name, order) + struct.pack(f"{order}I", kind) + value(kind, content, order)
    place = 0
    for name, sizes, kind in tensors:
        out += value(STRING, name, order) + struct.pack(f"{order}I{len(sizes)}QIQ", len(sizes), *sizes, kind, place)
        place += 32
    return out + bytes(-len(out) % 32) + bytes(range(32)) * len(tensors)


texts = st.text(max_size=12) | st.sampled_from(["Ġé", "你好 🙂", "\x00"])
scalars = {7: st.booleans(), 6: st.floats(width=32), 12: st.floats()}
for kind, form in FORMATS.items():
    bits = 8 * struct.calcsize(f"<{form}")
    scalars.setdefault(kind, st.integers(0, 2**bits - 1) if form.isupper() else st.integers(-(2 ** (bits - 1)), 127))
scalars[STRING] = texts
flat = st.one_of(st.tuples(st.just(kind), st.lists(values, max_size=30)) for kind, values in scalars.items())
nested = st.recursive(flat, lambda inner: st.tuples(st.just(ARRAY), st.lists(inner, max_size=3)), max_leaves=4)
kinds = scalars | {ARRAY: nested}
fields = st.lists(
    st.one_of(st.tuples(texts, st.just(kind), values) for kind, values in kinds.items()),
    max_size=6,
    unique_by=lambda field: field[0],
)
tensors = st.lists(
    st.tuples(texts, st.lists(st.integers(1, 2), max_size=3), st.just(F32)), max_size=3, unique_by=lambda each: each[0]
)


def told(reader):
    """All that a reader says, in values that can be compared."""
    said = [
        (name, field.offset, field.name, [(part.dtype.str, part.tobytes()) for part in field.parts])
        for name, field in reader.fields.items()
    ]
    meant = [(field.data, field.types, repr(field.contents())) for field in reader.fields.values()]
    stored = [
        (each.name, each.tensor_type, each.shape.tolist(), each.n_elements, each.n_bytes, each.data_offset)
        for each in reader.tensors
    ]
    held = [(each.data.dtype.str, each.data.shape, each.data.tobytes()) for each in reader.tensors]
    return said, meant, stored, held, reader.byte_order, int(reader.alignment), int(reader.data_offset)


@settings(deadline=None, max_examples=60)
@given(fields=fields, tensors=tensors, order=st.sampled_from("<>"))
def test_it_says_what_the_plain_reader_says(tmp_path_factory, fields, tensors, order):
    file = tmp_path_factory.getbasetemp() / "random.gguf"
    file.write_bytes(packed(fields, tensors, order))
    assert told(QuickReader(file)) == told(GGUFReader(file))


def test_large_arrays_are_read_too(tmp_path):
    words, scores = [f"word {i} Ġ你" for i in range(20_000)], [i / 7 for i in range(20_000)]
    (tmp_path / "m.gguf").write_bytes(packed([("words", ARRAY, (STRING, words)), ("scores", ARRAY, (12, scores))]))
    reader = QuickReader(tmp_path / "m.gguf")
    assert reader.fields["words"].contents() == words and reader.fields["scores"].contents() == scores


GOOD = packed(
    [
        ("general.architecture", STRING, "llama"),
        ("words", ARRAY, (STRING, ["a", "b"])),
        ("ids", ARRAY, (UINT32, [1, 2])),
    ],
    [("w", [2, 4], F32), ("v", [8], F32)],
)


def with_array(kind, count):
    return packed([("words", ARRAY, struct.pack("<IQ", kind, count))])


def with_tensor(*sizes, count=None, kind=F32, place=0):
    head = struct.pack(f"<I{len(sizes)}QIQ", len(sizes) if count is None else count, *sizes, kind, place)
    return b"GGUF" + struct.pack("<IQQ", 3, 1, 0) + value(STRING, "w", "<") + head + bytes(64)


BROKEN = {
    "empty": b"",
    "other magic": b"GGML" + GOOD[4:],
    "other version": GOOD[:4] + struct.pack("<I", 99) + GOOD[8:],
    "tensors": GOOD[:8] + struct.pack("<Q", HUGE) + GOOD[16:],
    "fields": GOOD[:16] + struct.pack("<Q", HUGE) + GOOD[24:],
    "name's length": GOOD[:24] + struct.pack("<Q", HUGE) + GOOD[32:],
    "string's length": packed([("general.architecture", STRING, struct.pack("<Q", HUGE) + b"llama")]),
    "string's length in an array": packed([("words", ARRAY, struct.pack("<IQQ", STRING, 1, HUGE))]),
    "unknown kind": packed([("n", 77, b"")]),
    "unknown kind in an array": with_array(77, 1),
    "name that is no text": packed([("n", UINT32, 1)]).replace(b"n", b"\xff"),
    "architecture that is no text": packed([("general.architecture", STRING, struct.pack("<Q", 1) + b"\xff")]),
    "field twice": packed([("one\ntwo", UINT32, 1), ("one\ntwo", UINT32, 2)]),
    "tensor twice": packed([], [("w", [8], F32), ("w", [8], F32)]),
    "arrays in arrays": packed([("words", ARRAY, struct.pack("<IQ", ARRAY, 1) * 100_000)]),
    "alignment": packed([("general.alignment", UINT32, 3)]),
    "alignment of another kind": packed([("general.alignment", 10, 32)]),
    "dimensions": with_tensor(4, count=1 << 31),
    "sizes": with_tensor(1 << 63, 2),
    "size": with_tensor(HUGE),
    "tensor's place": with_tensor(4, place=(1 << 64) - 1),
    "tensor's kind": with_tensor(4, kind=777),
    "part of a block": with_tensor(33, kind=int(GGMLQuantizationType.Q4_0)),
    **{f"array of {kind}": with_array(kind, HUGE) for kind in (*FORMATS, STRING, ARRAY)},
}


@pytest.mark.parametrize("lie", BROKEN)
def test_what_is_broken_is_one_line(tmp_path, lie):
    file = tmp_path / "broken.gguf"
    file.write_bytes(BROKEN[lie])
    for read in (load, model_info, load_tokenizer):
        with pytest.raises(ModelError, match=r"\A.*broken\.gguf is no GGUF file, or was cut off.*\Z") as told:
            read(resolve(file))
        assert "\n" not in str(told.value)


@pytest.mark.parametrize("count", [1 << 23, HUGE])
def test_no_memory_is_taken_for_what_cannot_be(tmp_path, count):
    """An array may claim as many values as the file has bytes, and each would be an object."""
    (tmp_path / "m.gguf").write_bytes(with_array(0, count) + bytes(1 << 23))
    with pytest.raises(ValueError, match=f"should have {count} values"):
        QuickReader(tmp_path / "m.gguf")


def test_cut_off_anywhere_it_is_an_error(tmp_path):
    file = tmp_path / "cut.gguf"
    for length in range(len(GOOD)):
        file.write_bytes(GOOD[:length])
        with pytest.raises(ModelError, match="cut off"):
            model_info(resolve(file))
    file.write_bytes(GOOD)
    assert model_info(resolve(file)).tensors == 2


@pytest.mark.parametrize("share", [0.0, 1e-5, 1e-3, 0.05, 0.1, 0.5, 0.999999])
def test_a_model_that_was_cut_off_is_not_loaded(checkpoint, tmp_path, share):
    whole, cut = checkpoint("gguf-q4").path.read_bytes(), tmp_path / "cut.gguf"
    cut.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(ModelError, match=r"cut\.gguf .*cut off"):
        load(cut, "cpu")


def test_text_that_is_none_is_one_line(checkpoint, tmp_path):
    """The head is sound; that a token is no text is only found when the tokens are wanted."""
    bad = tmp_path / "bad.gguf"
    bad.write_bytes(checkpoint("gguf-q4").path.read_bytes().replace("Ġthe".encode(), b"\xff\xfe\xff\xfe\xff"))
    with pytest.raises(ModelError, match="bad.gguf") as told:
        load(bad, "cpu")
    assert "\n" not in str(told.value)


@pytest.fixture(scope="module")
def written(tiny_lm, tmp_path_factory):
    """Write a tiny model in one of ggml's types."""

    def write(kind):
        lm, folder = tiny_lm(), tmp_path_factory.mktemp("dense")
        write_gguf(lm, save(lm, folder), folder / f"{kind}.gguf", kind)
        return folder / f"{kind}.gguf"

    return write


@pytest.fixture
def plainly(monkeypatch):
    """Load as without quick reading."""

    def read(file, **options):
        with monkeypatch.context() as patch:
            patch.setattr(gguf_reader, "quick_gguf", nullcontext)
            patch.setattr(gguf_reader, "read_gguf", GGUFReader)
            return load(file, "cpu", **options)

    return read


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("kind", ["F32", "F16", "BF16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0"])
def test_a_model_is_the_same_bit_by_bit(written, plainly, kind, dtype):
    file = written(kind)
    quick, plain = load(file, "cpu", dtype), plainly(file, dtype=dtype)
    assert quick.model.config.to_dict() == plain.model.config.to_dict()
    ours, theirs = quick.model.state_dict(), plain.model.state_dict()
    assert list(ours) == list(theirs)
    assert all(torch.equal(ours[name], theirs[name]) and ours[name].dtype == theirs[name].dtype for name in ours)
    assert quick.fingerprint == plain.fingerprint


def test_a_tokenizer_is_the_same(checkpoint, plainly):
    file = checkpoint("gguf-q8").path
    quick, plain = load(file, "cpu").tokenizer, plainly(file).tokenizer
    ours = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)  # what transformers alone gives
    assert type(quick) is type(plain) is type(ours)
    assert quick.backend_tokenizer.to_str() == plain.backend_tokenizer.to_str()
    assert quick.get_vocab() == ours.get_vocab()
    assert quick.special_tokens_map == plain.special_tokens_map
    assert quick.chat_template == plain.chat_template
    assert quick.init_kwargs.keys() == plain.init_kwargs.keys()


@settings(deadline=None, max_examples=30)
@given(text=st.text())
def test_texts_get_the_same_ids(checkpoint, text):
    file = checkpoint("gguf-q8").path
    if file not in TOKENIZERS:
        TOKENIZERS[file] = load(file, "cpu").tokenizer, load(checkpoint("gguf-q8").dense, "cpu").tokenizer
    quick, dense = TOKENIZERS[file]
    assert quick(text)["input_ids"] == dense(text)["input_ids"]


TOKENIZERS = {}


@pytest.mark.parametrize("kind", [kind for kind in GGMLQuantizationType if kind in gguf.quants._type_traits])
@pytest.mark.parametrize("shape", [(1, 1), (3, 5), (700, 3), (2, 300, 1)])
def test_any_type_is_unpacked_to_the_same_bits(kind, shape):
    block, size = gguf.GGML_QUANT_SIZES[kind]
    stored = np.random.default_rng(0).integers(0, 256, (*shape[:-1], shape[-1] * size), np.uint8)
    with np.errstate(all="ignore"):  # random halves are infinite here and there
        plain = gguf.dequantize(stored, kind)
        with quick_gguf():
            quick = gguf.dequantize(stored, kind)
    assert quick.shape == plain.shape == (*shape[:-1], shape[-1] * block)
    assert quick.dtype == plain.dtype and quick.tobytes() == plain.tobytes()


@pytest.fixture
def parsed(monkeypatch):
    """The files that were parsed, in order."""
    files, plain = [], QuickReader.__init__

    def parse(self, path, *options):
        files.append(path)
        plain(self, path, *options)

    monkeypatch.setattr(QuickReader, "__init__", parse)
    return files


def test_a_load_reads_the_head_once_and_keeps_nothing_of_it(checkpoint, parsed, monkeypatch):
    readers = []
    monkeypatch.setattr(GGUFReader, "_build_tensors", remember(readers, GGUFReader._build_tensors))
    lm = load(checkpoint("gguf-q4").path, "cpu")
    assert len(parsed) == 1
    gc.collect()
    assert readers and all(reader() is None for reader in readers)
    assert lm.tokenizer("town")["input_ids"]


def remember(readers, plain):
    def build(self, *given):
        readers.append(weakref.ref(self))
        return plain(self, *given)

    return build


def test_a_file_that_was_changed_is_read_again(tmp_path, parsed):
    file = tmp_path / "m.gguf"
    file.write_bytes(GOOD)
    with quick_gguf():
        assert read_gguf(file) is gguf.GGUFReader(file) is gguf.GGUFReader(str(file))
        file.write_bytes(packed([("other", UINT32, 1)]))
        assert "other" in read_gguf(file).fields
    assert len(parsed) == 2
    assert read_gguf(file) is not read_gguf(file)


def test_a_file_is_opened_for_writing_by_the_plain_reader(tmp_path, parsed):
    (tmp_path / "m.gguf").write_bytes(GOOD)
    with quick_gguf():
        assert type(gguf.GGUFReader(tmp_path / "m.gguf", "r+")) is GGUFReader
    assert not parsed


def standing():
    return [getattr(importlib.import_module(module), name) for module, name in REPLACED]


@pytest.mark.parametrize("error", [None, ModelError, KeyboardInterrupt])
def test_names_are_put_back(error):
    before = standing()
    with pytest.raises(error) if error else nullcontext(), quick_gguf():
        within = standing()
        with quick_gguf():  # of one load within another
            assert standing() == within
        assert standing() == within and not any(one is other for one, other in zip(before, within, strict=True))
        if error:
            raise error
    assert standing() == before


def test_one_thread_at_a_time_is_within():
    order, begun = [], threading.Event()

    def other():
        begun.set()
        with quick_gguf():
            order.append("other")

    thread = threading.Thread(target=other)
    with quick_gguf():
        thread.start()
        begun.wait()
        thread.join(0.1)
        order.append("this")
    thread.join(10)
    assert order == ["this", "other"] and not thread.is_alive()


def test_a_reader_that_looks_otherwise_is_used_plainly(checkpoint, monkeypatch):
    """As in a version of gguf that was not written yet: slower, and as good."""
    file, plain = checkpoint("gguf-q4").path, GGUFReader._get
    expected = load(file, "cpu").fingerprint

    def get(self, offset, dtype, count=1, *, override_order=None):
        return plain(self, offset, dtype, count, override_order)

    monkeypatch.setattr(GGUFReader, "_get", get)
    assert load(file, "cpu").fingerprint == expected


def test_a_name_that_is_called_otherwise_is_left_alone(checkpoint, monkeypatch):
    converting = importlib.import_module(CONVERTING)
    expected, plain = load(checkpoint("gguf-q4").path, "cpu").fingerprint, converting._gguf_parse_value

    def other(stored, types, strict=False):
        return plain(stored, types)

    monkeypatch.setattr(converting, "_gguf_parse_value", other)
    gone = [("no_such_module", "name", nullcontext), ("gguf", "no_such_name", nullcontext)]
    monkeypatch.setattr(gguf_reader, "_REPLACED", (*gguf_reader._REPLACED, *gone))
    with quick_gguf():
        assert converting._gguf_parse_value is other
    assert load(checkpoint("gguf-q4").path, "cpu").fingerprint == expected
    assert converting._gguf_parse_value is other


@pytest.mark.slow
def test_loading_is_silent(checkpoint):
    """In a process of its own: libraries have their say when they are imported."""
    code = f"import idp; idp.load({str(checkpoint('gguf-q4').path)!r}, 'cpu')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("", "")
