"""JPEG files that Pillow does not write: any sampling factors, scans, markers and tables, and broken ones.

Written from their coefficients, with the Huffman tables of T.81, annex K.3.
"""

from __future__ import annotations

import random
import struct
from dataclasses import dataclass, field

ZIGZAG = sorted(range(64), key=lambda at: (at // 8 + at % 8, at % 8 if (at // 8 + at % 8) % 2 == 0 else at // 8))
DC = [([0, 1, 5, 1, 1, 1, 1, 1, 1] + [0] * 7, list(range(12))), ([0, 3, 1, 1, 1, 1, 1, 1, 1, 1, 1] + [0] * 5, list(range(12)))]
AC_FIRST = [
    "01020300041105122131410613516107227114328191a1082342b1c11552d1f02433627282",
    "000102031104052131061241510761711322328108144291a1b1c109233352f0156272d10a162434e125f11718191a",
]
AC_COUNTS = [[0, 2, 1, 3, 3, 2, 4, 3, 5, 5, 4, 4, 0, 0, 1, 0x7D], [0, 2, 1, 2, 4, 4, 3, 4, 7, 5, 4, 4, 0, 1, 2, 0x77]]


def ac_table(slot: int) -> tuple[list[int], list[int]]:
    first = list(bytes.fromhex(AC_FIRST[slot]))
    every = [run << 4 | size for run in range(16) for size in range(1, 11)]
    return AC_COUNTS[slot], first + [symbol for symbol in every if symbol not in first]


AC = [ac_table(0), ac_table(1)]


def codes(table: tuple[list[int], list[int]]) -> dict[int, tuple[int, int]]:
    counts, symbols = table
    found, code, at = {}, 0, 0
    for length, count in enumerate(counts, 1):
        for _ in range(count):
            found[symbols[at]] = (code, length)
            code, at = code + 1, at + 1
        code <<= 1
    return found


CODES = {("dc", slot): codes(DC[slot]) for slot in range(2)} | {("ac", slot): codes(AC[slot]) for slot in range(2)}


class Bits:
    def __init__(self) -> None:
        self.bits: list[str] = []

    def put(self, value: int, length: int) -> None:
        if length:
            self.bits.append(format(value, f"0{length}b"))

    def bytes(self) -> bytes:
        bits = "".join(self.bits)
        bits += "1" * (-len(bits) % 8)
        return b"".join(bytes([int(bits[at : at + 8], 2)]).replace(b"\xff", b"\xff\0") for at in range(0, len(bits), 8))


def segment(marker: int, data: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(data) + 2) + data


def signed(value: int) -> tuple[int, int]:
    size = abs(value).bit_length()
    return size, value if value >= 0 else value + (1 << size) - 1


def put_block(bits: Bits, block: list[int], before: int, slot: int) -> None:
    size, value = signed(block[0] - before)
    bits.put(*CODES["dc", slot][size])
    bits.put(value, size)
    run = 0
    last = max((at for at in range(1, 64) if block[at]), default=0)
    for at in range(1, last + 1):
        if block[at] == 0:
            run += 1
            continue
        while run > 15:
            bits.put(*CODES["ac", slot][0xF0])
            run -= 16
        size, value = signed(block[at])
        bits.put(*CODES["ac", slot][run << 4 | size])
        bits.put(value, size)
        run = 0
    if last < 63:
        bits.put(*CODES["ac", slot][0])


@dataclass
class Picture:
    """What a file is to be; coefficients come of the seed."""

    width: int
    height: int
    factors: list[tuple[int, int]]
    names: bytes = b"\x01\x02\x03\x04"
    before: bytes = b""
    scans: list[list[int]] | None = None
    restart: int = 0
    worth: int = 12
    strength: int = 8
    seed: int = 0
    wide_tables: bool = False
    has_huffman: bool = True
    last_dc: dict[int, int] = field(default_factory=dict)

    def block(self, rng: random.Random, component: int) -> list[int]:
        most = 1000 // self.worth
        dc = max(-most, min(most, self.last_dc.get(component, 0) + rng.randint(-most // 2, most // 2)))
        self.last_dc[component] = dc
        block = [dc] + [0] * 63
        for _ in range(rng.choice([0, 0, 1, 3, 6, 20])):
            at = min(63, 1 + int(rng.expovariate(0.12)))
            block[at] = max(-1023, min(1023, int(rng.gauss(0, self.strength / (1 + at / 8)))))
        return block

    def bytes(self) -> bytes:
        rng = random.Random(self.seed)
        across = max(h for h, _ in self.factors)
        down = max(v for _, v in self.factors)
        up = lambda value, part: -(-value // part)  # noqa: E731
        units = up(self.width, across * 8), up(self.height, down * 8)
        blocks = [(up(up(self.width * h, across), 8), up(up(self.height * v, down), 8)) for h, v in self.factors]
        planes = [[[self.block(rng, at) for _ in range(units[0] * h)] for _ in range(units[1] * v)] for at, (h, v) in enumerate(self.factors)]
        out = b"\xff\xd8" + self.before
        values = [max(1, min(65535 if self.wide_tables else 255, self.worth + at // 4)) for at in range(64)]
        table = b"".join(struct.pack(">H", value) for value in values) if self.wide_tables else bytes(values)
        out += segment(0xDB, bytes([0x10 if self.wide_tables else 0]) + table)
        frame = struct.pack(">BHHB", 8, self.height, self.width, len(self.factors))
        frame += b"".join(bytes([self.names[at], h << 4 | v, 0]) for at, (h, v) in enumerate(self.factors))
        out += segment(0xC1 if self.wide_tables else 0xC0, frame)
        if self.has_huffman:
            for slot in range(2):
                for kind, (counts, symbols) in ((0, DC[slot]), (16, AC[slot])):
                    out += segment(0xC4, bytes([kind | slot]) + bytes(counts) + bytes(symbols))
        if self.restart:
            out += segment(0xDD, struct.pack(">H", self.restart))
        for scan in self.scans or [list(range(len(self.factors)))]:
            slots = [0 if at == 0 else 1 for at in scan]
            named = b"".join(bytes([self.names[at], slot << 4 | slot]) for at, slot in zip(scan, slots))
            out += segment(0xDA, bytes([len(scan)]) + named + b"\0\x3f\0")
            size = blocks[scan[0]] if len(scan) == 1 else units
            bits, last, done = Bits(), {}, 0
            for unit in range(size[0] * size[1]):
                row, column = divmod(unit, size[0])
                if self.restart and unit and unit % self.restart == 0:
                    out += bits.bytes() + bytes([0xFF, 0xD0 + done % 8])
                    bits, last, done = Bits(), {}, done + 1
                for at, slot in zip(scan, slots):
                    h, v = (1, 1) if len(scan) == 1 else self.factors[at]
                    for y in range(v):
                        for x in range(h):
                            block = planes[at][row * v + y][column * h + x]
                            put_block(bits, block, last.get(at, 0), slot)
                            last[at] = block[0]
            out += bits.bytes()
        return out + b"\xff\xd9"


JFIF = segment(0xE0, b"JFIF\0\1\1\0\0\1\0\1\0\0")


def adobe(transform: int) -> bytes:
    return segment(0xEE, b"Adobe\0\x64\0\0\0\0" + bytes([transform]))


def changed(data: bytes, seed: int, count: int = 3) -> bytes:
    """Bytes behind the first scan's header changed, so that none is a marker's."""
    rng = random.Random(seed)
    start = data.index(b"\xff\xda") + 14
    out = bytearray(data)
    for _ in range(count):
        at = rng.randrange(start, len(out) - 2)
        if 0xFF not in out[at - 1 : at + 2]:
            out[at] = rng.randrange(255)
    return bytes(out)


def refined_too_far() -> bytes:
    """A progressive file of one block with a coefficient of -32768, to which a scan adds one more bit."""
    scan = lambda band, bits, data: segment(0xDA, b"\1\1\0" + bytes([*band, bits])) + bytes([data])  # noqa: E731
    tables = segment(0xC4, bytes([0x00, 1] + [0] * 15 + [0])) + segment(0xC4, bytes([0x10, 1, 1] + [0] * 14 + [3, 0]))
    frame = segment(0xDB, b"\0" + bytes([1] * 64)) + segment(0xC2, b"\x08\0\x08\0\x08\1\1\x11\0")
    scans = scan((0, 0), 0, 0b01111111) + scan((1, 63), 0x0D, 0b00111011) + scan((1, 63), 0xED, 0b10111111)
    return b"\xff\xd8" + frame + tables + scans + b"\xff\xd9"


def files() -> dict[str, bytes]:
    h2v2, h2v1, h1v2, same = [(2, 2), (1, 1), (1, 1)], [(2, 1), (1, 1), (1, 1)], [(1, 2), (1, 1), (1, 1)], [(1, 1)] * 3
    shapes = {
        "420": h2v2, "422": h2v1, "440": h1v2, "444": same, "411": [(4, 1), (1, 1), (1, 1)], "410": [(4, 2), (1, 1), (1, 1)],
        "441": [(1, 4), (1, 1), (1, 1)], "3x1": [(3, 1), (1, 1), (1, 1)], "2x3": [(2, 3), (1, 1), (1, 1)],
        "mixed": [(2, 2), (2, 1), (1, 2)], "colour_more": [(1, 1), (2, 2), (2, 1)], "doubled": [(2, 2)] * 2 + [(1, 2)],
        "grey": [(1, 1)], "grey_2x2": [(2, 2)], "grey_1x3": [(1, 3)], "four": [(1, 1)] * 4, "four_420": [(2, 2), (1, 1), (1, 1), (2, 2)],
    }  # fmt: skip
    found = {}
    sizes = [(37, 29), (1, 1), (2, 3), (3, 2), (5, 41), (34, 17), (16, 32)]
    for number, (name, factors) in enumerate(shapes.items()):
        for turn in range(3):
            width, height = sizes[(number + 3 * turn) % len(sizes)]
            found[f"{name}_{width}x{height}"] = Picture(width, height, factors, seed=number * 10 + turn).bytes()
    for name in ("420", "422", "440", "mixed", "grey_2x2", "four_420"):
        apart = [[at] for at in range(len(shapes[name]))]
        found[f"{name}_apart"] = Picture(35, 27, shapes[name], scans=apart, seed=5).bytes()
        found[f"{name}_apart_restarts"] = Picture(35, 27, shapes[name], scans=apart, restart=4, seed=5).bytes()
        for restart in (1, 3):
            found[f"{name}_restart_{restart}"] = Picture(41, 33, shapes[name], restart=restart, seed=6).bytes()
    found["420_two_scans"] = Picture(35, 27, h2v2, scans=[[0], [1, 2]], seed=7).bytes()
    found["420_missing"] = Picture(35, 27, h2v2, scans=[[0], [2]], seed=7).bytes()
    for name, before, names in [
        ("jfif", JFIF, b"RGB"), ("none", b"", b"\0\1\2"), ("rgb", b"", b"RGB"), ("adobe_0", adobe(0), b"\1\2\3"),
        ("adobe_1", adobe(1), b"RGB"), ("adobe_2", adobe(2), b"\1\2\3"), ("jfif_adobe_0", JFIF + adobe(0), b"\1\2\3"),
    ]:  # fmt: skip
        found[f"space_{name}"] = Picture(19, 11, h2v1, names=names, before=before, seed=8).bytes()
    for transform in range(3):
        found[f"space_four_{transform}"] = Picture(19, 11, shapes["four_420"], before=adobe(transform), seed=9).bytes()
    found["strong"] = Picture(35, 27, h2v2, worth=2, strength=700, seed=10).bytes()
    found["wide_tables"] = Picture(35, 27, h2v2, worth=300, strength=3, wide_tables=True, seed=11).bytes()
    found["no_tables"] = Picture(35, 27, h2v2, has_huffman=False, seed=12).bytes()
    found["no_tables_grey"] = Picture(35, 27, [(1, 1)], has_huffman=False, seed=12).bytes()
    plain = Picture(43, 37, h2v2, seed=13).bytes()
    found["refined_too_far"] = refined_too_far()
    found["junk"] = plain.replace(b"\xff\xc0", b"junk\0\xff\0\xff\xff\xff\xc0")
    restarts = Picture(43, 37, h2v2, restart=2, seed=13).bytes()
    for name, whole in {"ends_early": plain, "restarts_end_early": restarts}.items():
        found[name] = whole[: (whole.index(b"\xff\xda") + 2 * len(whole)) // 3].rstrip(b"\xff") + b"\xff\xd9"
    for marker in range(0xD0, 0xD4):
        code = bytes([0xFF, marker])
        found[f"no_restart_{marker & 7}"] = restarts.replace(code, b"", 1)
        found[f"other_restart_{marker & 7}"] = restarts.replace(code, bytes([0xFF, 0xD0 | marker + 5 & 7]), 1)
        found[f"late_restart_{marker & 7}"] = restarts.replace(code, b"\x12\x34\x56" + code, 1)
        found[f"past_restart_{marker & 7}"] = restarts.replace(code, bytes([0xFF, 0xD0 | marker - 1 & 7]) + b"\1" + code, 1)
    for seed in range(8):
        found[f"changed_{seed}"] = changed(plain, seed)
        found[f"changed_restarts_{seed}"] = changed(restarts, seed)
    return found
