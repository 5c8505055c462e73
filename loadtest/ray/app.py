"""The Ray Serve applications that Mobula is compared with, in the shape of Ray's own Stable Diffusion sample: a FastAPI
ingress that calls a model deployment through a handle. `null` draws nothing, `pictures` draws through Optimum on ONNX Runtime.

Settings come from the environment, since Serve imports this file in every replica:
  COMPARE_MODEL      folder of the model
  COMPARE_REPLICAS   replicas of the model's deployment (1, as in the sample)
  COMPARE_THREADS    threads of ONNX Runtime in each replica; 0 leaves it to ONNX Runtime
"""

import io
import os
import threading

from fastapi import FastAPI
from fastapi.responses import Response
from ray import serve
from ray.serve.handle import DeploymentHandle

api = FastAPI()
REPLICAS = int(os.environ.get("COMPARE_REPLICAS", "1"))
# Far above the callers of the comparison: what is measured is not a limit of our choosing.
ONGOING = 1000


@serve.deployment(num_replicas=1, max_ongoing_requests=ONGOING)
@serve.ingress(api)
class Ingress:
    def __init__(self, model: DeploymentHandle) -> None:
        self.model = model

    @api.get("/imagine", response_class=Response)
    async def imagine(
        self, prompt: str, img_size: int = 128, seed: int = 0, steps: int = 20, guidance_scale: float = 3.0
    ) -> Response:
        assert prompt, "prompt parameter cannot be empty"
        png = await self.model.generate.remote(prompt, img_size, seed, steps, guidance_scale)
        return Response(content=png, media_type="image/png")


@serve.deployment(num_replicas=REPLICAS, max_ongoing_requests=ONGOING, ray_actor_options={"num_cpus": 0})
class Null:
    """Answers at once with a grey square, made once for each size."""

    def __init__(self) -> None:
        self.files: dict[int, bytes] = {}

    async def generate(self, prompt: str, size: int, seed: int, steps: int, guidance_scale: float) -> bytes:
        if size not in self.files:
            from PIL import Image

            file = io.BytesIO()
            Image.new("RGB", (size, size), (128, 128, 128)).save(file, "PNG")
            self.files[size] = file.getvalue()
        return self.files[size]


@serve.deployment(num_replicas=REPLICAS, max_ongoing_requests=ONGOING, ray_actor_options={"num_cpus": 0})
class Pictures:
    """The sample's model deployment, one request at a time."""

    def __init__(self) -> None:
        import onnxruntime
        from optimum.onnxruntime import ORTStableDiffusionPipeline

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = int(os.environ.get("COMPARE_THREADS", "0"))
        self.pipe = ORTStableDiffusionPipeline.from_pretrained(
            os.environ["COMPARE_MODEL"], provider="CPUExecutionProvider", session_options=options
        )
        self.pipe.set_progress_bar_config(disable=True)
        # Serve may call from several threads at once, and a diffusers pipeline keeps its scheduler's state to itself: without
        # this, concurrent requests fail.
        self.one = threading.Lock()

    def generate(self, prompt: str, size: int, seed: int, steps: int, guidance_scale: float) -> bytes:
        import torch

        with self.one:
            image = self.pipe(
                prompt,
                height=size,
                width=size,
                num_inference_steps=steps,
                guidance_scale=guidance_scale,
                generator=torch.Generator().manual_seed(seed),
            ).images[0]
        file = io.BytesIO()
        image.save(file, "PNG")
        return file.getvalue()


null = Ingress.bind(Null.bind())
pictures = Ingress.bind(Pictures.bind())
