"""What can befall a file: bytes, JSON and archives, damaged by the draws of a random generator."""

import io
import json
import unicodedata
import zipfile
from collections.abc import Callable, Sequence
from random import Random
from typing import Any

ODD_WORDS = (
    "", " ", "0", "-1", "1e999", "nan", "NaN", "None", "null", "true", ",", '"', "'", "\t", "\n", "\r", "\r\n", "\0",
    ";", "\\", "[", "]", "{", "}", "\ufeff", "\u2028", "\x85", "é", "\U0001f600", "../..", "~", "/", "x" * 5000,
    "9" * 5000, "[" * 100_000, "[" * 700 + "]" * 700, '{"a":' * 50_000, '"' + "b " * 70_000,
)  # fmt: skip
ODD_VALUES = (
    None, True, False, 0, -1, 1, 2, 7, 1.5, 1e-30, 2**31, 2**63, 10**12, 10**30, float("nan"), float("inf"), "", " ",
    "1", "word", "\0", "\ud800", "../..", "x" * 5000, [], [[]], [None], [1, 2], ["a"], {}, {"": None}, {"0": "a"},
)  # fmt: skip
ODD_BYTES = (b"\0", b"\xff", b"\xff\xfe", b"\xef\xbb\xbf", b"\x80", b"\xed\xa0\x80", b"\x1a", b"\xff" * 8, b"\0" * 300)


def damaged(rng: Random, content: bytes) -> bytes:
    """The bytes after one to three accidents."""
    for _ in range(rng.randint(1, 3)):
        content = rng.choice(ACCIDENTS)(rng, content)
    return content


def _truncated(rng: Random, content: bytes) -> bytes:
    return content[: rng.randint(0, len(content))]


def _flipped(rng: Random, content: bytes) -> bytes:
    """A few bytes become others."""
    changed = bytearray(content)
    for _ in range(rng.randint(1, 8)):
        if changed:
            changed[rng.randrange(len(changed))] = rng.randrange(256)
    return bytes(changed)


def _inserted(rng: Random, content: bytes) -> bytes:
    at = rng.randint(0, len(content))
    piece = rng.choice((*ODD_BYTES, *(word.encode() for word in ODD_WORDS)))
    return content[:at] + piece + content[at:]


def _without_a_piece(rng: Random, content: bytes) -> bytes:
    start, end = sorted((rng.randint(0, len(content)), rng.randint(0, len(content))))
    return content[:start] + content[end:]


def _with_a_piece_twice(rng: Random, content: bytes) -> bytes:
    start, end = sorted((rng.randint(0, len(content)), rng.randint(0, len(content))))
    return content[:end] + content[start:]


def _overwritten(rng: Random, content: bytes) -> bytes:
    """A run of zeros, as a full disk or a broken copy leaves it."""
    start, end = sorted((rng.randint(0, len(content)), rng.randint(0, len(content))))
    return content[:start] + bytes(end - start) + content[end:]


def _in_another_encoding(rng: Random, content: bytes) -> bytes:
    encoding = rng.choice(("utf-16", "utf-16-le", "utf-32", "latin-1", "utf-7", "cp037"))
    return content.decode("utf-8", errors="replace").encode(encoding, errors="replace")


def _with_other_line_ends(rng: Random, content: bytes) -> bytes:
    return content.replace(b"\n", rng.choice((b"\r", b"\r\n", b"\n\r", b"\n\n", b"", b"\0", "\u2028".encode())))


def _with_lines_moved(rng: Random, content: bytes) -> bytes:
    lines = content.split(b"\n")
    rng.shuffle(lines)
    return b"\n".join(lines)


def _with_a_line_again(rng: Random, content: bytes) -> bytes:
    """Such as the header, where files were put together; some begin with a byte order mark."""
    lines = content.split(b"\n")
    lines.insert(
        rng.randint(0, len(lines)), rng.choice((b"", b"\xef\xbb\xbf")) + rng.choice((lines[0], rng.choice(lines)))
    )
    return b"\n".join(lines)


def _with_quoted_cells(rng: Random, content: bytes) -> bytes:
    """As other programs quote the cells of some lines, or begin to."""
    sign = b"\t" if b"\t" in content else b","
    lines = [line.split(sign) for line in content.split(b"\n")]
    quoted = rng.choice((
        lambda cell: b'"' + cell + b'"', lambda cell: b'"' + cell.replace(b" ", b' ""', 1) + b'"',
        lambda cell: b'"' + cell,
        lambda cell: cell + b'"', lambda cell: b"'" + cell + b"'", lambda cell: b' "' + cell + b'"',
    ))  # fmt: skip
    share = rng.choice((0.1, 0.5, 1.0))
    return b"\n".join(
        sign.join(quoted(cell) if cell and rng.random() < share else cell for cell in line) for line in lines
    )


def _empty(*_: Any) -> bytes:
    return b""


ACCIDENTS: Sequence[Callable[[Random, bytes], bytes]] = (
    _truncated, _flipped, _inserted, _inserted, _without_a_piece, _with_a_piece_twice, _overwritten,
    _in_another_encoding, _with_other_line_ends, _with_lines_moved, _with_a_line_again, _with_quoted_cells, _empty,
)  # fmt: skip


def damaged_json(rng: Random, value: Any) -> bytes:
    """JSON whose values or keys are others or, now and then, whose bytes are damaged."""
    for _ in range(rng.randint(0, 3)):
        value = with_another_value(rng, value)
    text = json.dumps(value, ensure_ascii=rng.random() < 0.5)
    if rng.random() < 0.1:
        text = text.replace(rng.choice("0123456789"), rng.choice(ODD_WORDS), 1)
    content = text.encode("utf-8", errors="surrogatepass")
    return damaged(rng, content) if rng.random() < 0.3 else content


def with_another_value(rng: Random, value: Any) -> Any:
    """A copy in which one value, of whatever depth, is replaced, is gone, or has another key."""
    if not isinstance(value, dict | list) or not value or rng.random() < 0.1:
        return rng.choice(ODD_VALUES)
    key = rng.choice(list(value) if isinstance(value, dict) else range(len(value)))
    changed = value.copy()
    match rng.randrange(6):
        case 0:
            del changed[key]
        case 1 if isinstance(changed, dict):
            changed[rng.choice(("", "x", "label", "0", str(key).upper()))] = changed.pop(key)
        case 1:
            changed.append(changed[key])
        case _:
            changed[key] = with_another_value(rng, value[key])
    return changed


def spellings(rng: Random, name: str) -> str:
    """A name that looks much the same, or a number of the same value."""
    number = name.lstrip("-").isdecimal()
    return rng.choice((
        name, name, f" {name}", f"{name}\u00a0", f"\t{name}  ",
        *((f"{name}.0", f"{name}e0", f"{name}.", name.translate(_WIDE)) if number else
          (name.upper(), name.title(), unicodedata.normalize("NFD", name), f"\u200b{name}", name.replace(" ", "  "))),
    ))  # fmt: skip


_WIDE = {ord("0") + digit: 0xFF10 + digit for digit in range(10)}


def damaged_zip(rng: Random, content: bytes) -> bytes:
    """An archive that is whole, but for what is in one of its files."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    name = rng.choice(sorted(files))
    files[name] = damaged(rng, files[name])
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        for file, inner in files.items():
            archive.writestr(zipfile.ZipInfo(file), inner)
    return made.getvalue()


def damaged_safetensors(rng: Random, content: bytes) -> bytes:
    """A file whose header is another, of the right length."""
    size = int.from_bytes(content[:8], "little")
    header = damaged_json(rng, json.loads(content[8 : 8 + size]))
    return len(header).to_bytes(8, "little") + header + content[8 + size :]
