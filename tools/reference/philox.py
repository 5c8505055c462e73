#!/usr/bin/env python3
"""Golden noise of torch's CUDA generator for crates/diffusion, as AUTOMATIC1111's web UI computes it without a GPU.

The reference is that project's modules/rng_philox.py (a file of its own that needs only numpy; values were made with commit
ef1698fd6dbd6387341a1eeeded068ff1476ee50). It is not part of this repository: get it, and give its path.

    python tools/reference/philox.py --reference rng_philox.py --out crates/diffusion/tests/golden/philox.json
"""

import argparse
import importlib.util
import json

SEEDS = [0, 1, 42, 2**32 + 5, 2**64 - 1]
DRAWS = [3, 1, 1000, 36, 2]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--reference", required=True, help="rng_philox.py of AUTOMATIC1111's stable-diffusion-webui")
    parser.add_argument("--out", required=True, help="the JSON file to write")
    args = parser.parse_args()
    spec = importlib.util.spec_from_file_location("rng_philox", args.reference)
    reference = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(reference)
    cases = []
    for seed in SEEDS:
        generator = reference.Generator(seed)
        draws = []
        for size in DRAWS:
            values = generator.randn((size,)).tolist()
            at = range(0, size, 37 if size > 100 else 1)
            draws.append({"size": size, "values": [[i, float(f"{values[i]:.9g}")] for i in at]})
        cases.append({"seed": seed, "draws": draws})
    with open(args.out, "w", encoding="utf-8") as file:
        header = {"made_by": "tools/reference/philox.py", "reference": "rng_philox.py of AUTOMATIC1111's web UI"}
        file.write('{"header": ' + json.dumps(header) + ',\n"cases": [\n')
        file.write(",\n".join(json.dumps(case, separators=(",", ":")) for case in cases))
        file.write("\n]}\n")


if __name__ == "__main__":
    main()
