#!/usr/bin/env python3
"""Golden noise for crates/diffusion: torch's CPU generator over several seeds and successive draws.

Run with the versions in requirements.txt:

    python tools/reference/noise.py --out crates/diffusion/tests/golden/noise.json
"""

import argparse
import json

import torch

SEEDS = [0, 1, 42, 2**32 + 5, 2**64 - 1]
# Below 16 values torch draws one by one and keeps the second normal of a pair; the last list mixes both ways.
DRAWS = [[1, 1, 1], [3, 5], [15, 2], [16], [17, 31], [1000], [4096], [5, 16, 3, 31, 1, 20, 2]]

LONG = 1 << 18


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", required=True, help="the JSON file to write")
    args = parser.parse_args()
    cases = []
    for seed in SEEDS:
        for sizes in DRAWS:
            generator = torch.Generator("cpu").manual_seed(seed)
            draws = []
            for size in sizes:
                values = torch.randn(size, generator=generator).tolist()
                # Long draws: every 37th value and the last 20, which the tail rule touches.
                at = sorted(set(range(0, size, 37)) | set(range(size - 20, size))) if size > 31 else range(size)
                draws.append({"size": size, "values": [[i, float(f"{values[i]:.9g}")] for i in at]})
            cases.append({"seed": seed, "draws": draws})
    # One long draw by its checksum, the sum of all bit patterns: a single rounding anywhere changes it.
    long = torch.randn(LONG, generator=torch.Generator("cpu").manual_seed(99))
    bits = int(long.view(torch.int32).to(torch.int64).bitwise_and(0xFFFF_FFFF).sum())
    header = {"made_by": "tools/reference/noise.py", "versions": {"torch": torch.__version__}}
    with open(args.out, "w", encoding="utf-8") as file:
        file.write('{"header": ' + json.dumps(header) + ',\n"cases": [\n')
        file.write(",\n".join(json.dumps(case, separators=(",", ":")) for case in cases))
        file.write('\n],\n"long": ' + json.dumps({"seed": 99, "size": LONG, "sum_of_bits": bits}) + "}\n")
    print(f"{len(cases)} seeds and draws")


if __name__ == "__main__":
    main()
