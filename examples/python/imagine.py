"""Draws a picture over gRPC, with stubs generated from proto/ (README.md beside this file).

    python imagine.py "a green star on a white background" star.png --seed 7
"""

import argparse
import pathlib
import sys

import grpc
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from mobula.image.v1 import image_pb2, image_pb2_grpc

# A PNG of 2048 x 2048 may take twelve; gRPC's own limit is four.
MAX_MESSAGE_BYTES = 32 << 20
BAR = 30


def progress(step):
    """A bar on a terminal; elsewhere it would only fill a log."""
    if sys.stderr.isatty():
        done = BAR * step.index // step.of
        end = "\n" if step.index == step.of else ""
        print(f"\r[{'#' * done}{'.' * (BAR - done)}] step {step.index} of {step.of}", end=end, file=sys.stderr, flush=True)


def explain(error, server):
    """What went wrong in words: google.rpc's details where the server sent them."""
    said, lines = f"{error.code().name}: {error.details()}", []
    status = rpc_status.from_call(error)
    for packed in status.details if status else []:
        for kind in (error_details_pb2.BadRequest, error_details_pb2.RetryInfo, error_details_pb2.ErrorInfo):
            detail = kind()
            if not packed.Unpack(detail):
                continue
            if kind is error_details_pb2.BadRequest:
                # The message says the same in one line.
                said = error.code().name
                lines += [f"  {wrong.field}: {wrong.description}" for wrong in detail.field_violations]
            elif kind is error_details_pb2.RetryInfo:
                lines.append(f"  try again in {detail.retry_delay.ToTimedelta().total_seconds():g} s")
            else:
                lines.append(f"  reason {detail.reason} ({detail.domain})")
    if error.code() == grpc.StatusCode.UNAVAILABLE and not status:
        lines.append(f"  nobody answers at {server}; `mobula up` starts a mesh")
    return "\n".join([said, *lines])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("prompt")
    parser.add_argument("file", type=pathlib.Path)
    parser.add_argument("--seed", type=int, help="the same seed draws the same picture; one is drawn by default")
    parser.add_argument("--steps", type=int, help="by default the model's")
    parser.add_argument("--init-image", type=pathlib.Path, help="a PNG, JPEG or WebP file to start from")
    parser.add_argument("--strength", type=float, help="how much of it is drawn anew, 0 to 1")
    parser.add_argument("--server", default="127.0.0.1:9000", help="host:port (%(default)s)")
    parser.add_argument("--timeout", type=float, default=60, help="seconds (%(default)s)")
    args = parser.parse_args()

    request = image_pb2.GenerateRequest(
        prompt=args.prompt,
        seeds=[] if args.seed is None else [args.seed],
        steps=args.steps,
        strength=args.strength,
        init_image=args.init_image.read_bytes() if args.init_image else b"",
    )
    options = [("grpc.max_receive_message_length", MAX_MESSAGE_BYTES)]
    with grpc.insecure_channel(args.server, options) as channel:
        try:
            for response in image_pb2_grpc.ImageServiceStub(channel).Generate(request, timeout=args.timeout):
                event = response.WhichOneof("event")
                if event == "step":
                    progress(response.step)
                elif event == "image":
                    image = response.image
                    args.file.write_bytes(image.data)
                    print(f"{args.file}: {image.width} x {image.height}, seed {image.seed}, sha256 {image.digest}")
        except grpc.RpcError as error:
            print(explain(error, args.server), file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
