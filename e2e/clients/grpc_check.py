"""gRPC as Python's own library speaks it, and gRPC-Web as sonora does, with stubs generated from proto/ on the path.

    PYTHONPATH=stubs python grpc_check.py 127.0.0.1:9000 SHA256

The picture of PROMPT with seed 7 has this SHA-256, as other clients were told.
"""

import hashlib
import sys

import grpc
import sonora.client
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from grpc_status import rpc_status
from mobula.image.v1 import image_pb2 as image
from mobula.image.v1.image_pb2_grpc import ImageServiceStub
from ray.serve import serve_pb2, serve_pb2_grpc

SERVER, DIGEST = sys.argv[1:]
PROMPT = "a red circle on a blue background"
MAX_REQUEST = 40 << 20


def request(**more):
    return image.GenerateRequest(**{"prompt": PROMPT, "seeds": [7], **more})


def picture(events):
    """Checks the order of a stream's events, and its one picture."""
    seen = [(event.WhichOneof("event"), event) for event in events]
    kinds = [kind for kind, _ in seen]
    assert kinds[0] == "accepted" and kinds[-2:] == ["image", "done"] and "step" in kinds, kinds
    drawn = seen[-2][1].image
    assert hashlib.sha256(drawn.data).hexdigest() == drawn.digest == DIGEST, drawn.digest


def refused(code, call):
    try:
        list(call())
    except grpc.RpcError as error:
        assert error.code() == code, error
        return error
    raise AssertionError(f"not refused with {code}")


def plain(channel):
    stub = ImageServiceStub(channel)
    picture(stub.Generate(request(), timeout=60))
    # Ray's metadata, both ways.
    application = stub.ListModels(image.ListModelsRequest()).models[0].name
    call = stub.Generate(request(), metadata=[("application", application), ("request_id", "from-python")])
    picture(call)
    assert dict(call.initial_metadata())["request_id"] == "from-python"
    assert dict(call.trailing_metadata())["request_id"] == "from-python"
    refused(grpc.StatusCode.NOT_FOUND, lambda: stub.Generate(request(), metadata=[("application", "nobodys")]))
    refused(grpc.StatusCode.NOT_FOUND, lambda: stub.Generate(request(), metadata=[("multiplexed_model_id", "none")]))
    late = refused(grpc.StatusCode.DEADLINE_EXCEEDED, lambda: stub.Generate(request(steps=1000), timeout=0.3))
    assert late.details()


def details(channel):
    stub = ImageServiceStub(channel)
    error = refused(grpc.StatusCode.INVALID_ARGUMENT, lambda: stub.Generate(request(prompt="", width=100)))
    bad = error_details_pb2.BadRequest()
    assert rpc_status.from_call(error).details[0].Unpack(bad)
    assert [wrong.field for wrong in bad.field_violations] == ["prompt", "width"], bad
    error = refused(grpc.StatusCode.INVALID_ARGUMENT, lambda: stub.Generate(request(init_image=bytes(MAX_REQUEST))))
    assert "--max-image-bytes" in error.details(), error.details()
    error = refused(grpc.StatusCode.NOT_FOUND, lambda: [stub.GetModel(image.GetModelRequest(model="dall-e"))])
    info = error_details_pb2.ErrorInfo()
    assert rpc_status.from_call(error).details[0].Unpack(info) and info.reason == "UNKNOWN_MODEL", error


def compressed():
    """A channel that compresses all that it sends, bombs included."""
    limit = [("grpc.max_send_message_length", -1)]
    with grpc.insecure_channel(SERVER, limit, compression=grpc.Compression.Gzip) as channel:
        stub = ImageServiceStub(channel)
        picture(stub.Generate(request(), timeout=60))
        assert stub.ListModels(image.ListModelsRequest()).models
        bomb = lambda: stub.Generate(request(init_image=bytes(4 * MAX_REQUEST)))  # noqa: E731
        assert "--max-image-bytes" in refused(grpc.StatusCode.INVALID_ARGUMENT, bomb).details()


def services(channel):
    names = ProtoReflectionDescriptorDatabase(channel).get_services()
    assert "mobula.image.v1.ImageService" in names, names
    health = health_pb2_grpc.HealthStub(channel)
    for name in ["", *names]:
        answer = health.Check(health_pb2.HealthCheckRequest(service=name))
        assert answer.status == health_pb2.HealthCheckResponse.SERVING, name
    refused(grpc.StatusCode.NOT_FOUND, lambda: [health.Check(health_pb2.HealthCheckRequest(service="none"))])
    ray = serve_pb2_grpc.RayServeAPIServiceStub(channel)
    assert ray.Healthz(serve_pb2.HealthzRequest()).message == "success"
    assert ray.ListApplications(serve_pb2.ListApplicationsRequest()).application_names == ["default"]


def web():
    with sonora.client.insecure_web_channel(f"http://{SERVER}") as channel:
        # By hand: stubs pass their channel more than this one takes.
        service = "/mobula.image.v1.ImageService/"
        serialize, parse = image.GenerateRequest.SerializeToString, image.GenerateResponse.FromString
        generate = channel.unary_stream(service + "Generate", serialize, parse)
        call = generate(request(), metadata=[("x-request-id", "from-a-page")])
        picture(call)
        assert dict(call.trailing_metadata())["request_id"] == "from-a-page"
        serialize, parse = image.ListModelsRequest.SerializeToString, image.ListModelsResponse.FromString
        models = channel.unary_unary(service + "ListModels", serialize, parse)(image.ListModelsRequest()).models
        assert models[0].name == "default"
        error = refused(grpc.StatusCode.INVALID_ARGUMENT, lambda: generate(request(prompt="")))
        assert "prompt" in error.details(), error.details()


with grpc.insecure_channel(SERVER, [("grpc.max_send_message_length", -1)]) as channel:
    for check in (plain, details, services):
        check(channel)
compressed()
web()
print(f"grpcio {grpc.__version__}, sonora: streams, metadata, details, limits, gzip, health, reflection, gRPC-Web")
