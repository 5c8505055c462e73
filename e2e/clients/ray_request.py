"""The smallest client of Ray's Stable Diffusion sample: one GET, one file, no look at the status.

    python ray_request.py http://127.0.0.1:8000 output.png
"""

import sys

import requests

address, file = sys.argv[1:]
words = "a cute cat is dancing on the grass.".split(" ")
answer = requests.get(f"{address}/imagine?prompt={'%20'.join(words)}")
with open(file, "wb") as out:
    out.write(answer.content)
