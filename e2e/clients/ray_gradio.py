"""A Gradio app in front of a mesh, as the sample on EKS has one: a prompt in, a picture out, red for any error, 180 s of patience.

    SERVICE_NAME=http://127.0.0.1:8000 python ray_gradio.py          serves it (GRADIO_SERVER_PORT)
    SERVICE_NAME=http://127.0.0.1:8000 python ray_gradio.py check    serves it on a free port, asks it as a browser does, and ends
"""

import io
import os
import sys

import gradio
import requests
from PIL import Image

ADDRESS = os.environ.get("SERVICE_NAME", "http://localhost:8000") + os.environ.get("MODEL_ENDPOINT", "/imagine")
TIMEOUT_S = 180
FAILED = Image.new("RGB", (100, 100), "red")


def draw(prompt):
    try:
        answer = requests.get(ADDRESS, params={"prompt": prompt}, timeout=TIMEOUT_S)
        answer.raise_for_status()
    except requests.RequestException:
        return FAILED
    return Image.open(io.BytesIO(answer.content))


def check(app):
    from gradio_client import Client

    _, address, _ = app.launch(server_name="127.0.0.1", prevent_thread_lock=True, quiet=True)
    client = Client(address, verbose=False)

    def asked(prompt):
        with Image.open(client.predict(prompt, api_name="/predict")) as picture:
            return picture.size, picture.convert("RGB").getpixel((50, 50))

    size, _ = asked("a red circle on a blue background")
    assert size != FAILED.size, "no picture came through the app"
    size, pixel = asked("")
    assert size == FAILED.size and pixel[0] > 240 > 20 > pixel[1], (size, pixel)
    app.close()
    print(f"gradio {gradio.__version__}: a picture, and red for an error")


app = gradio.Interface(draw, [gradio.Textbox(label="Prompt")], gradio.Image(type="pil"), analytics_enabled=False)
if sys.argv[1:] == ["check"]:
    check(app)
else:
    app.launch(server_name="127.0.0.1")
