"""A batch as the client of Ray's sample on TPUs asks for it: a pool of threads, one prompt each, and a grid of the pictures.

    python ray_batch.py --address http://127.0.0.1:8000 --num_requests 8 --batch_size 8 --save_pictures
"""

import argparse
import io
from concurrent.futures import ThreadPoolExecutor

import requests
from PIL import Image
from tqdm import tqdm

THINGS = ["circle", "square", "star", "triangle"]
COLOURS = ["red", "green", "blue", "yellow", "purple", "white"]
PROMPTS = [f"a {colour} {thing} on a black background" for thing in THINGS for colour in COLOURS]


def draw(address, prompt):
    answer = requests.get(f"{address}/imagine?prompt={'%20'.join(prompt.split(' '))}")
    answer.raise_for_status()
    return Image.open(io.BytesIO(answer.content))


def grid(pictures, columns):
    """Two rows, as the sample lays them out; the cells have the first one's size."""
    width, height = pictures[0].size
    sheet = Image.new("RGB", (columns * width, 2 * height))
    for at, picture in enumerate(pictures):
        sheet.paste(picture, (at % columns * width, at // columns * height))
    return sheet


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--address", default="http://localhost:8000")
    parser.add_argument("--num_requests", type=int, default=8)
    parser.add_argument("--batch_size", type=int, default=8, help="requests at a time")
    parser.add_argument("--save_pictures", action="store_true", help="write diffusion_results.png")
    args = parser.parse_args()
    prompts = (PROMPTS * (args.num_requests // len(PROMPTS) + 1))[: args.num_requests]
    with ThreadPoolExecutor(args.batch_size) as pool:
        pictures = list(tqdm(pool.map(lambda prompt: draw(args.address, prompt), prompts), total=len(prompts)))
    if args.save_pictures:
        grid(pictures, args.num_requests // 2).save("diffusion_results.png")


if __name__ == "__main__":
    main()
