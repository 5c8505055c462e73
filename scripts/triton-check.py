"""`tritonclient` against a mesh: gRPC and HTTP, streams, JSON and binary tensors, counts, and the exceptions it makes of errors.

    .tools/triton/bin/python scripts/triton-check.py HTTP_HOST:PORT GRPC_HOST:PORT [MODEL]

The mesh serves MODEL, by default the first one listed, which must be able to draw from pictures.
"""

import asyncio
import base64
import queue
import struct
import sys
import zlib
from importlib.metadata import version

import numpy as np
import tritonclient.grpc as grpcclient
import tritonclient.grpc.aio as grpcaio
import tritonclient.http as httpclient
import tritonclient.http.aio as httpaio
from tritonclient.utils import InferenceServerException

PROMPT = "a red circle on a blue background"
# Few, because a debug build of the mesh is slow; what is checked does not depend on it.
STEPS = 4
SIZE = (64, 128)


def size(png):
    """Width and height of a PNG file."""
    assert png[:8] == b"\x89PNG\r\n\x1a\n", png[:8]
    return struct.unpack(">II", png[16:24])


def pixels(png):
    """Red, green and blue of an 8-bit PNG file, read by its specification."""
    width, height = size(png)
    assert png[24:29] == b"\x08\x02\x00\x00\x00", "8 bits, RGB, not interlaced"
    data, at = b"", 8
    while at < len(png):
        length, kind = struct.unpack(">I4s", png[at : at + 8])
        if kind == b"IDAT":
            data += png[at + 8 : at + 8 + length]
        at += length + 12
    raw = np.frombuffer(zlib.decompress(data), np.uint8).reshape(height, 1 + 3 * width)
    out = np.zeros((height, 3 * width), np.uint8)
    for y in range(height):
        kind, row = raw[y, 0], raw[y, 1:].astype(int)
        up = out[y - 1].astype(int) if y else np.zeros(3 * width, int)
        if kind == 0:
            out[y] = row
        elif kind == 2:
            out[y] = row + up & 255
        else:
            for x in range(3 * width):
                left = int(out[y, x - 3]) if x > 2 else 0
                corner = int(up[x - 3]) if x > 2 else 0
                guess = left + up[x] - corner
                paeth = min((left, up[x], corner), key=lambda value: abs(guess - value))
                out[y, x] = row[x] + {1: left, 3: (left + up[x]) // 2, 4: paeth}[int(kind)] & 255
    return out.reshape(height, width, 3)


def tensors(client, **values):
    """Inputs of a client's module by their names."""
    inputs = []
    for name, value in values.items():
        if isinstance(value, list) and isinstance(value[0], (bytes, str)):
            texts = [one if isinstance(one, bytes) else one.encode() for one in value]
            array, kind = np.array(texts, np.object_), "BYTES"
        elif (array := np.asarray(value)).dtype == np.uint8:
            kind = "UINT8"
        else:
            kind = {"i": "INT64", "u": "UINT64", "f": "FP32"}[array.dtype.kind]
            array = array.astype({"INT64": np.int64, "UINT64": np.uint64, "FP32": np.float32}[kind])
        array = array.reshape(-1) if array.ndim == 0 else array
        tensor = client.InferInput(name, list(array.shape), kind)
        tensor.set_data_from_numpy(array)
        inputs.append(tensor)
    return inputs


def ask(client, **more):
    values = {"prompt": [PROMPT], "negative_prompt": ["green"], "seed": [7], "width": [SIZE[0]], "height": [SIZE[1]]}
    return tensors(client, **{**values, "steps": [STEPS], "guidance_scale": [3.0], **more})


def metadata(grpc, http, model):
    assert grpc.is_server_live() and http.is_server_live()
    assert grpc.is_server_ready() and http.is_server_ready()
    assert grpc.is_model_ready(model) and http.is_model_ready(model, "1")
    assert not grpc.is_model_ready("none") and not http.is_model_ready("none")
    over_grpc, over_http = grpc.get_server_metadata(as_json=True), http.get_server_metadata()
    assert over_grpc == over_http and over_http["name"] == "mobula", (over_grpc, over_http)
    assert "statistics" in over_http["extensions"]
    over_grpc = grpc.get_model_metadata(model)
    over_http = http.get_model_metadata(model, "1")
    assert [t.name for t in over_grpc.inputs] == [t["name"] for t in over_http["inputs"]]
    assert [list(t.shape) for t in over_grpc.outputs] == [t["shape"] for t in over_http["outputs"]]
    prompt = over_http["inputs"][0]
    assert (prompt["name"], prompt["datatype"], prompt["shape"]) == ("prompt", "BYTES", [-1]), prompt
    config = grpc.get_model_config(model).config
    over_http = http.get_model_config(model)
    assert config.name == over_http["name"] == model
    assert [t.name for t in config.input] == [t["name"] for t in over_http["input"]]
    assert config.input[0].data_type == 13 and over_http["input"][0]["data_type"] == "TYPE_STRING"
    assert config.parameters["default_steps"].string_value == over_http["parameters"]["default_steps"]["string_value"]
    listed = [(m.name, m.state) for m in grpc.get_model_repository_index().models]
    assert (model, "READY") in listed, listed
    assert listed == [(m["name"], m["state"]) for m in http.get_model_repository_index()]
    grpc.load_model(model)
    http.load_model(model)
    # What clients do before they begin.
    grpc.unregister_system_shared_memory()
    http.unregister_cuda_shared_memory()
    assert not http.get_system_shared_memory_status() and not grpc.get_cuda_shared_memory_status().regions


def whole(grpc, http, model):
    """The same picture through both doors, as tensors and as parameters, binary and JSON, packed and not."""
    answer = grpc.infer(model, ask(grpcclient), request_id="mine", priority=1, timeout=300_000_000)
    told = answer.get_response()
    assert (told.id, told.model_name, told.model_version) == ("mine", model, "1")
    image = answer.as_numpy("image")
    assert image.shape == (1,) and size(image[0]) == SIZE
    assert answer.as_numpy("seed").tolist() == [7]
    assert told.parameters["steps"].int64_param == STEPS and told.parameters["total_us"].int64_param > 0
    first = image[0]

    parameters = {"steps": STEPS, "guidance_scale": 3.0, "width": SIZE[0], "height": SIZE[1], "negative_prompt": "green"}
    inputs = tensors(grpcclient, prompt=[PROMPT], seed=[7])
    assert grpc.infer(model, inputs, parameters=parameters).as_numpy("image")[0] == first, "the same, by parameters"
    for packed in (None, "gzip", "deflate"):
        answer = http.infer(
            model, ask(httpclient), request_id="mine", request_compression_algorithm=packed,
            response_compression_algorithm="gzip",
        )
        assert answer.get_response()["id"] == "mine"
        assert answer.as_numpy("image")[0] == first, "the same, over HTTP"
    outputs = [httpclient.InferRequestedOutput(name, binary_data=False) for name in ("image", "seed")]
    inputs = ask(httpclient)
    prompt = httpclient.InferInput("prompt", [1], "BYTES")
    prompt.set_data_from_numpy(np.array([PROMPT.encode()], np.object_), binary_data=False)
    answer = http.infer(model, [prompt, *inputs[1:]], outputs=outputs)
    assert base64.b64decode(answer.as_numpy("image")[0]) == first, "the same, as JSON"
    assert answer.as_numpy("seed").tolist() == [7]

    outputs = [grpcclient.InferRequestedOutput(name) for name in ("pixels", "seed")]
    answer = grpc.infer(model, ask(grpcclient, prompt=[PROMPT, "a square"], seed=[7, 8]), outputs=outputs)
    raw = answer.as_numpy("pixels")
    assert raw.dtype == np.uint8 and raw.shape == (2, SIZE[1], SIZE[0], 3), raw.shape
    assert (raw[0] == pixels(first)).all(), "the same, as pixels"
    assert not (raw[1] == raw[0]).all() and answer.as_numpy("seed").tolist() == [7, 8]
    assert answer.as_numpy("image") is None

    drawn = grpc.infer(model, ask(grpcclient, init_image=[first], strength=[0.5])).as_numpy("image")[0]
    assert size(drawn) == SIZE and drawn != first
    text = base64.b64encode(first).decode()
    inputs = tensors(httpclient, prompt=[PROMPT], seed=[7])
    answer = http.infer(
        model, inputs, parameters={"strength": 0.5, "init_image": text, **parameters}
    )
    assert answer.as_numpy("image")[0] == drawn, "a file as base64"
    return first


def stages(grpc, http, model, first):
    """The stages one after the other draw what the whole pipeline draws, to the bit."""

    def stage(name, parameters=None, outputs=None, **values):
        wanted = outputs and [grpcclient.InferRequestedOutput(output) for output in outputs]
        inputs = tensors(grpcclient, **values)
        return grpc.infer(f"{model}.{name}", inputs, outputs=wanted, parameters=parameters)

    tokens = stage("tokenize", prompt=[PROMPT, "green"])
    ids, weights = tokens.as_numpy("input_ids"), tokens.as_numpy("weights")
    assert ids.shape == weights.shape and ids.shape[0] == 2 and ids.dtype == np.int64, ids.shape
    states = stage("text_encoder", input_ids=ids).as_numpy("hidden_states")
    assert states.shape[:-1] == ids.shape and states.dtype == np.float32, states.shape
    texts = {
        "input_ids": ids[0], "weights": weights[0], "hidden_states": states[0],
        "negative_input_ids": ids[1], "negative_weights": weights[1], "negative_hidden_states": states[1],
    }
    said = {"width": SIZE[0], "height": SIZE[1], "steps": STEPS, "guidance_scale": 3.0}
    denoised = stage("denoiser", said, **texts, seed=[7, 8])
    latents = denoised.as_numpy("latents")
    assert latents.shape[0] == 2 and denoised.as_numpy("seed").tolist() == [7, 8], latents.shape
    drawn = stage("vae_decoder", outputs=["pixels"], latents=latents).as_numpy("pixels")
    assert (drawn[0] == pixels(first)).all(), "the same, stage by stage"
    file = http.infer(f"{model}.vae_decoder", tensors(httpclient, latents=latents[:1])).as_numpy("image")[0]
    assert (pixels(file) == drawn[0]).all() and b"AI-Generated" in file, "the same, as a file that says what it is"

    # Weights of words, too.
    wanted = [grpcclient.InferRequestedOutput("pixels")]
    for syntax, prompt, emphasis in (("a1111", "a (red:1.4) circle", "mean"), ("compel", "a red++ circle", "empty")):
        tokens = stage("tokenize", {"prompt_syntax": syntax}, prompt=[prompt, "green"])
        assert parameter(tokens, "emphasis") == emphasis, tokens.get_response().parameters
        weighted = {}
        for row, start in ((0, ""), (1, "negative_")):
            ids = tokens.as_numpy("input_ids")[row]
            states = stage("text_encoder", input_ids=ids).as_numpy("hidden_states")
            weighted |= {f"{start}input_ids": ids, f"{start}hidden_states": states, f"{start}weights": tokens.as_numpy("weights")[row]}
        empty = tokens.as_numpy("empty_input_ids")
        if empty is not None:
            states = stage("text_encoder", input_ids=empty).as_numpy("hidden_states")
            weighted |= {"empty_input_ids": empty, "empty_hidden_states": states}
        latents = stage("denoiser", {**said, "emphasis": emphasis}, **weighted, seed=[7]).as_numpy("latents")
        drawn = stage("vae_decoder", outputs=["pixels"], latents=latents).as_numpy("pixels")
        inputs = tensors(grpcclient, prompt=[prompt], negative_prompt=["green"], seed=[7])
        whole = grpc.infer(model, inputs, outputs=wanted, parameters={**said, "prompt_syntax": syntax}).as_numpy("pixels")
        assert (drawn == whole).all(), f"the same with weights of {syntax}, stage by stage"

    # From a picture, too.
    wanted = [grpcclient.InferRequestedOutput("pixels")]
    whole = grpc.infer(model, ask(grpcclient, init_image=[first], strength=[0.5]), outputs=wanted).as_numpy("pixels")
    encoded = stage("vae_encoder", pixels=pixels(first))
    moments = {name: encoded.as_numpy(name) for name in ("mean", "deviation") if encoded.as_numpy(name) is not None}
    latents = stage("denoiser", {**said, "strength": 0.5}, **texts, **moments, seed=[7]).as_numpy("latents")
    drawn = stage("vae_decoder", outputs=["pixels"], latents=latents).as_numpy("pixels")
    assert (drawn == whole).all(), "the same from a picture, stage by stage"

    told = http.get_model_metadata(f"{model}.denoiser")
    assert [t["name"] for t in told["outputs"]] == ["latents", "seed"]
    assert grpc.is_model_ready(f"{model}.vae_encoder") and not grpc.is_model_ready(f"{model}.unet")
    counted = grpc.get_inference_statistics(f"{model}.denoiser").model_stats[0]
    assert (counted.execution_count, counted.inference_count) == (4, 5), counted
    wrong = "hidden_states: has the shape"
    refused("StatusCode.INVALID_ARGUMENT", wrong, lambda: stage("denoiser", said, **{**texts, "hidden_states": states[0][:, :1]}))
    refused("StatusCode.INVALID_ARGUMENT", "prompt: changes with the steps", lambda: stage(
        "tokenize", {"prompt_syntax": "a1111"}, prompt=["[a:b:0.5]"]))
    refused("StatusCode.INVALID_ARGUMENT", "negative_input_ids: is required", lambda: stage(
        "denoiser", said, **{name: value for name, value in texts.items() if not name.startswith("negative")}))
    refused("StatusCode.INVALID_ARGUMENT", "latents: ", lambda: stage("vae_decoder", latents=np.zeros((1, 3, 8, 8))))


class Answers:
    """What a stream's callback hears."""

    def __init__(self, client):
        self.heard = queue.Queue()
        client.start_stream(callback=lambda result, error: self.heard.put((result, error)))

    def next(self):
        return self.heard.get(timeout=300)


def parameter(result, name):
    told = result.get_response().parameters
    if name not in told:
        return None
    return getattr(told[name], told[name].WhichOneof("parameter_choice"))


def streams(grpc, model, first):
    answers = Answers(grpc)
    # One answer, as a model that is not decoupled has.
    grpc.async_stream_infer(model, ask(grpcclient), request_id="one", enable_empty_final_response=True)
    result, error = answers.next()
    assert error is None and result.as_numpy("image")[0] == first, error
    assert result.get_response().id == "one" and parameter(result, "triton_final_response") is True
    # Errors are answers, and the stream lives on.
    grpc.async_stream_infer(model, ask(grpcclient, steps=[100_000]), request_id="wrong")
    result, error = answers.next()
    assert result is None and error.message().startswith("steps: is 100000 and must be at most"), error
    # How far it is, previews, pictures, and an empty end.
    told = {"progress": True, "preview_interval": 2}
    inputs = ask(grpcclient, seed=[7, 8])
    grpc.async_stream_infer(model, inputs, request_id="two", parameters=told, enable_empty_final_response=True)
    kinds, images, is_final = [], [], False
    while not is_final:
        result, error = answers.next()
        assert error is None and result.get_response().id == "two", error
        kinds.append(parameter(result, "event"))
        is_final = parameter(result, "triton_final_response")
        if kinds[-1] == "image":
            images.append((result.as_numpy("seed")[0], result.as_numpy("image")[0]))
        if kinds[-1] == "preview":
            assert size(result.as_numpy("preview")[0])[0] == SIZE[0] // 8
    assert kinds[0] == "accepted" and kinds[-1] is None and kinds.count("step") >= STEPS - 1, kinds
    assert kinds.count("preview") >= 2 and kinds.count("image") == 2, kinds
    assert dict(images)[7] == first, "the same, streamed"
    # Several at a time, each with its id.
    for nth in range(6):
        grpc.async_stream_infer(model, ask(grpcclient, seed=[nth]), request_id=str(nth))
    heard = {}
    for _ in range(6):
        result, error = answers.next()
        assert error is None, error
        heard[result.get_response().id] = result.as_numpy("seed").tolist()
    assert heard == {str(nth): [nth] for nth in range(6)}, heard
    grpc.stop_stream()
    # Who leaves may begin another stream at once.
    answers = Answers(grpc)
    grpc.async_stream_infer(model, ask(grpcclient, steps=[50]), parameters={"progress": True})
    answers.next()
    grpc.stop_stream(cancel_requests=True)


def refused(status, start, call):
    try:
        call()
    except InferenceServerException as error:
        assert error.status() == status and error.message().startswith(start), (error.status(), error.message())
        return
    raise AssertionError(f"{start} was not refused")


def errors(grpc, http, model):
    wrong = [
        ("steps: is FP32, and must be", ask(grpcclient, steps=[4.0]), ask(httpclient, steps=[4.0])),
        ("width: is 100 and must be a multiple of", ask(grpcclient, width=[100]), ask(httpclient, width=[100])),
        ("sampler: is not known", ask(grpcclient, sampler=["x"]), ask(httpclient, sampler=["x"])),
        ("steps: has 2 values and must have one", ask(grpcclient, steps=[1, 2]), ask(httpclient, steps=[1, 2])),
    ]
    for start, over_grpc, over_http in wrong:
        refused("StatusCode.INVALID_ARGUMENT", start, lambda: grpc.infer(model, over_grpc))
        refused("400", start, lambda: http.infer(model, over_http))
    unknown = 'there is no model "none"'
    refused("StatusCode.NOT_FOUND", unknown, lambda: grpc.infer("none", ask(grpcclient)))
    refused("404", unknown, lambda: http.infer("none", ask(httpclient)))
    refused("StatusCode.NOT_FOUND", f"{model} has version 1", lambda: grpc.get_model_metadata(model, "2"))
    refused("404", f"{model} has version 1", lambda: http.get_model_metadata(model, "2"))
    late = {"timeout": 1}
    refused("StatusCode.DEADLINE_EXCEEDED", "", lambda: grpc.infer(model, ask(grpcclient), **late))
    refused("408", "", lambda: http.infer(model, ask(httpclient), **late))
    sequence = {"sequence_id": 4, "sequence_start": True}
    refused("400", "sequence_id: is given", lambda: http.infer(model, ask(httpclient), **sequence))
    refused("StatusCode.UNIMPLEMENTED", "nothing is unloaded", lambda: grpc.unload_model(model))
    refused("501", "nothing is unloaded", lambda: http.unload_model(model))
    refused("StatusCode.UNIMPLEMENTED", "memory is not", lambda: grpc.register_system_shared_memory("a", "/a", 8))
    refused("501", "memory is not", lambda: http.register_system_shared_memory("a", "/a", 8))
    refused("StatusCode.UNIMPLEMENTED", "traces are", lambda: grpc.get_trace_settings())
    refused("501", "the log is", lambda: http.get_log_settings())
    shared = ask(grpcclient)
    shared[0].set_shared_memory("region", 8)
    refused("StatusCode.INVALID_ARGUMENT", "prompt: asks for shared_memory_region", lambda: grpc.infer(model, shared))


def counts(grpc, http, model, before):
    told = grpc.get_inference_statistics(model).model_stats[0]
    over_http = http.get_inference_statistics(model)["model_stats"][0]
    assert told.name == over_http["name"] == model and told.execution_count == over_http["execution_count"]
    if before is not None:
        was = before.inference_stats
        for part in ("success", "fail", "queue", "compute_input", "compute_infer", "compute_output"):
            now, then = getattr(told.inference_stats, part), getattr(was, part)
            assert now.count > then.count and now.ns > then.ns, (part, now, then)
        assert told.inference_count > told.execution_count > before.execution_count
        assert told.last_inference > 1_700_000_000_000
        assert {size.batch_size for size in told.batch_stats} >= {1, 2}
        assert any(m.name == model for m in grpc.get_inference_statistics().model_stats)
    return told


async def at_once(http_address, grpc_address, model, first):
    """Both asynchronous clients, and a stream of the one that has them."""
    async with grpcaio.InferenceServerClient(grpc_address) as client:
        assert await client.is_server_ready()
        many = await asyncio.gather(*(client.infer(model, ask(grpcaio)) for _ in range(3)))
        assert all(answer.as_numpy("image")[0] == first for answer in many)

        async def requests():
            for nth in range(2):
                yield {"model_name": model, "inputs": ask(grpcaio), "request_id": str(nth)}

        heard = {}
        async for result, error in client.stream_infer(requests()):
            assert error is None, error
            heard[result.get_response().id] = result.as_numpy("image")[0]
        assert heard == {"0": first, "1": first}
    async with httpaio.InferenceServerClient(http_address) as client:
        many = await asyncio.gather(*(client.infer(model, ask(httpaio)) for _ in range(3)))
        assert all(answer.as_numpy("image")[0] == first for answer in many)


def main():
    http_address, grpc_address, *wanted = sys.argv[1:]
    grpc = grpcclient.InferenceServerClient(grpc_address)
    http = httpclient.InferenceServerClient(http_address, concurrency=4, network_timeout=300, connection_timeout=300)
    model = wanted[0] if wanted else grpc.get_model_repository_index().models[0].name
    metadata(grpc, http, model)
    before = counts(grpc, http, model, None)
    first = whole(grpc, http, model)
    stages(grpc, http, model, first)
    streams(grpc, model, first)
    errors(grpc, http, model)
    asyncio.run(at_once(http_address, grpc_address, model, first))
    counts(grpc, http, model, before)
    print(f"tritonclient {version('tritonclient')} agrees with {http_address} and {grpc_address}, model {model}")


if __name__ == "__main__":
    main()
