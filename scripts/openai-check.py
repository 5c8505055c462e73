"""The `openai` package against a mesh: every endpoint, streams, links, and the exceptions that it makes of errors.

    .tools/venv/bin/python scripts/openai-check.py http://127.0.0.1:8000 [MODEL]

The mesh serves MODEL, by default the first one listed, which must be able to draw from and into pictures.
"""

import asyncio
import base64
import io
import sys
import urllib.error
import urllib.request

import openai
from PIL import Image, ImageChops, ImageStat

# Few, because a debug build of the mesh is slow; what is checked does not depend on it.
STEPS = {"num_inference_steps": 4}
PROMPT = "a red circle on a blue background"


def png(image):
    """A file as callers of the package give it."""
    file = io.BytesIO()
    image.save(file, "PNG")
    return ("picture.png", file.getvalue(), "image/png")


def decoded(b64_json, form="PNG"):
    image = Image.open(io.BytesIO(base64.b64decode(b64_json, validate=True)))
    image.load()
    assert image.format == form, image.format
    return image


def difference(one, other, box):
    """Mean difference of two pictures in a part of them, 0 to 255."""
    parts = [picture.convert("RGB").crop(box) for picture in (one, other)]
    return sum(ImageStat.Stat(ImageChops.difference(*parts)).mean) / 3


def models(client, wanted):
    listed = client.models.list().data
    assert listed, "no model is listed"
    model = wanted or listed[0].id
    assert model in [known.id for known in listed], listed
    one = client.models.retrieve(model)
    assert (one.id, one.object, one.owned_by) == (model, "model", "mobula"), one
    assert one.created > 1_700_000_000, one
    return model


def generations(client, model):
    fields = {**STEPS, "seed": 7, "guidance_scale": 3.0, "negative_prompt": "green", "scheduler": "euler_a"}
    answer = client.images.generate(model=model, prompt=PROMPT, n=2, size="64x128", user="me", extra_body=fields)
    assert answer.created > 1_700_000_000 and answer.size == "64x128", answer.size
    assert answer.output_format == "png" and answer.usage.total_tokens == 0
    assert [picture.seed for picture in answer.data] == [7, 8]
    pictures = [decoded(picture.b64_json) for picture in answer.data]
    assert all(picture.size == (64, 128) for picture in pictures)
    text = pictures[0].text["parameters"]
    for part in (PROMPT, "Negative prompt: green", "Steps: 4", "CFG scale: 3", "Seed: 7", "Sampler: Euler a"):
        assert part in text, f"{part!r} is not in {text!r}"
    assert answer.data[0].b64_json != answer.data[1].b64_json

    linked = client.images.generate(
        model=model, prompt=PROMPT, size="64x128", response_format="url", extra_body=fields
    ).data[0]
    assert linked.b64_json is None
    with urllib.request.urlopen(linked.url) as file:
        assert file.headers["content-type"] == "image/png"
        assert file.read() == base64.b64decode(answer.data[0].b64_json), "the same seed, the same bytes"
    try:
        urllib.request.urlopen(linked.url.replace(linked.url[-8:], "0000.png"))
        raise AssertionError("a link that was never given leads somewhere")
    except urllib.error.HTTPError as error:
        assert error.code == 404
    return answer.data[0].b64_json, fields


def formats(client, model, first, fields):
    """The same picture as JPEG and WebP, with what Pillow reads of how it was made."""
    first = decoded(first)
    whole = (0, 0, *first.size)
    sizes = []
    for form, level, most in (("webp", None, 0), ("jpeg", None, 3), ("jpeg", 30, 30)):
        answer = client.images.generate(
            model=model, prompt=PROMPT, size="64x128", output_format=form,
            **({} if level is None else {"output_compression": level}), extra_body=fields,
        )
        assert answer.output_format == form
        picture = decoded(answer.data[0].b64_json, form.upper())
        assert difference(first, picture, whole) <= most, (form, level, difference(first, picture, whole))
        exif = picture.getexif()
        comment = exif.get_ifd(0x8769)[0x9286]
        assert comment[:8] == b"UNICODE\0", comment
        assert comment[8:].decode("utf-16-be") == first.text["parameters"]
        assert exif[0x0131].startswith("Mobula"), exif
        about = picture.getxmp()["xmpmeta"]["RDF"]["Description"]
        assert about["DigitalSourceType"].endswith("/trainedAlgorithmicMedia") and about["Seed"] == "7", about
        sizes.append(len(answer.data[0].b64_json))
    assert sizes[2] < sizes[1], sizes


def told(stream, name, partial, size):
    """Checks a stream's events, and gives the last picture."""
    events = list(stream)
    kinds = [event.type for event in events]
    assert kinds == [f"{name}.partial_image"] * partial + [f"{name}.completed"], kinds
    for index, event in enumerate(events[:-1]):
        assert event.partial_image_index == index and event.output_format == "png"
        assert decoded(event.b64_json).width == size[0] // 8, "previews are at the latents' resolution"
    last = events[-1]
    assert last.size == f"{size[0]}x{size[1]}" and last.created_at > 1_700_000_000 and last.usage.total_tokens == 0
    assert last.background == "opaque" and last.quality == "auto"
    assert decoded(last.b64_json).size == size
    return last.b64_json


def streams(client, model, first, fields):
    ask = {"model": model, "prompt": PROMPT, "size": "64x128", "extra_body": fields, "stream": True}
    for partial in (0, 1, 3):
        stream = client.images.generate(**ask, partial_images=partial)
        assert told(stream, "image_generation", partial, (64, 128)) == first, "the same seed, the same bytes"
    # Who leaves a stream may ask again at once.
    with client.images.generate(**ask, partial_images=3) as stream:
        next(iter(stream))


def edits(client, model):
    fields = {"num_inference_steps": 8, "seed": 3}
    picture = Image.new("RGB", (128, 128), (250, 220, 40))
    # What is transparent is drawn anew: the left half.
    mask = Image.new("RGBA", (128, 128), (0, 0, 0, 255))
    mask.paste((0, 0, 0, 0), (0, 0, 64, 128))
    ask = {"model": model, "image": png(picture), "prompt": "a blue square on a black background"}
    answer = client.images.edit(**ask, mask=png(mask), extra_body=fields)
    drawn = decoded(answer.data[0].b64_json)
    assert drawn.size == picture.size and answer.size == "128x128"
    left, right = (difference(picture, drawn, box) for box in ((0, 0, 56, 128), (72, 0, 128, 128)))
    assert left > 4 * right, f"drawn anew: {left:.1f}, kept: {right:.1f}"
    # Without a mask everything may change, and the picture's own size is kept; here as a list of one, and streamed.
    wide = png(Image.new("RGB", (128, 64), (250, 220, 40)))
    ask = {**ask, "image": [wide], "extra_body": {**fields, "strength": 0.5}}
    told(client.images.edit(**ask, stream=True, partial_images=1), "image_edit", 1, (128, 64))
    return wide


def variations(client, model, picture):
    answer = client.images.create_variation(model=model, image=picture, n=2, extra_body={**STEPS, "seed": 1})
    assert [decoded(one.b64_json).size for one in answer.data] == [(128, 64)] * 2


def refused(kind, status, param, code, ask):
    try:
        ask()
    except kind as error:
        assert (error.status_code, error.param, error.code) == (status, param, code), (error, error.param, error.code)
        assert error.type and error.message, error
        return error
    raise AssertionError(f"{param} {code} was not refused")


def errors(client, model, picture):
    wrong, unknown = openai.BadRequestError, openai.NotFoundError
    draw = client.images.generate
    error = refused(unknown, 404, "model", "model_not_found", lambda: draw(model="dall-e-3", prompt="a"))
    assert error.request_id, "every answer to a request that draws has its id"
    refused(unknown, 404, "model", "model_not_found", lambda: client.models.retrieve("gpt-image-1"))
    for param, code, fields in [
        ("prompt", "string_below_min_length", {"prompt": ""}),
        ("n", "integer_above_max_value", {"n": 11}),
        ("size", "invalid_value", {"size": "100x100"}),
        ("background", "invalid_value", {"background": "transparent"}),
        ("output_format", "invalid_value", {"output_format": "gif"}),
        ("sampler", "unknown_parameter", {"extra_body": {"sampler": "x"}}),
        ("size", "invalid_value", {"size": "100x100", "stream": True}),
    ]:
        refused(wrong, 400, param, code, lambda: draw(**{"model": model, "prompt": "a", **fields}))
    edit = client.images.edit
    junk = ("picture.png", b"\x89PNG\r\n\x1a\n junk", "image/png")
    opaque = png(Image.new("RGB", (128, 64)))
    for param, fields in [
        ("image", {"image": junk}),
        ("image", {"image": [picture, picture]}),
        ("mask", {"image": picture, "mask": opaque}),
        ("mask", {"image": picture, "mask": png(Image.new("RGBA", (8, 8)))}),
    ]:
        refused(wrong, 400, param, "invalid_value", lambda: edit(model=model, prompt="a", **fields))
    huge = ("picture.png", bytes(40 << 20), "image/png")
    refused(openai.APIStatusError, 413, None, "request_too_large", lambda: edit(model=model, prompt="a", image=huge))
    late = {"x-mobula-timeout-ms": "1"}
    slow = lambda: draw(model=model, prompt="a", extra_headers=late, extra_body={"num_inference_steps": 50})  # noqa: E731
    refused(openai.APIStatusError, 408, None, "deadline_passed", slow)


async def at_once(base, model, first, fields):
    """Several callers of the asynchronous client on one connection pool."""
    async with openai.AsyncOpenAI(base_url=base, api_key="none", max_retries=0) as client:
        ask = {"model": model, "prompt": PROMPT, "size": "64x128", "extra_body": fields}
        answers = await asyncio.gather(*(client.images.generate(**ask) for _ in range(3)))
        assert all(answer.data[0].b64_json == first for answer in answers)
        stream = await client.images.generate(**ask, stream=True, partial_images=1)
        assert [event.type.rsplit(".")[-1] async for event in stream] == ["partial_image", "completed"]


def main():
    address, *wanted = sys.argv[1:]
    base = f"{address.rstrip('/')}/v1"
    client = openai.OpenAI(base_url=base, api_key="none", max_retries=0)
    model = models(client, wanted[0] if wanted else None)
    first, fields = generations(client, model)
    streams(client, model, first, fields)
    formats(client, model, first, fields)
    picture = edits(client, model)
    variations(client, model, picture)
    errors(client, model, picture)
    asyncio.run(at_once(base, model, first, fields))
    print(f"openai {openai.__version__} agrees with {base}, model {model}")


if __name__ == "__main__":
    main()
