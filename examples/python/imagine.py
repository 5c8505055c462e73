"""Draws a picture over gRPC, with stubs generated from proto/.

    python -m grpc_tools.protoc -I proto --python_out=stubs --grpc_python_out=stubs \\
        proto/mobula/common/v1/common.proto proto/mobula/image/v1/image.proto
    PYTHONPATH=stubs python examples/python/imagine.py "a green star on a white background" star.png
"""

import argparse

import grpc
from mobula.image.v1 import image_pb2, image_pb2_grpc


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("prompt")
    parser.add_argument("file")
    parser.add_argument("--seed", type=int, action="append", default=[])
    parser.add_argument("--init-image", help="a PNG, JPEG or WebP file to start from")
    parser.add_argument("--strength", type=float, help="how much of it is drawn anew, 0 to 1")
    parser.add_argument("--server", default="127.0.0.1:9000")
    args = parser.parse_args()

    with grpc.insecure_channel(args.server) as channel:
        stub = image_pb2_grpc.ImageServiceStub(channel)
        request = image_pb2.GenerateRequest(prompt=args.prompt, seeds=args.seed, strength=args.strength)
        if args.init_image:
            with open(args.init_image, "rb") as file:
                request.init_image = file.read()
        for response in stub.Generate(request, timeout=60):
            event = response.WhichOneof("event")
            if event == "step":
                print(f"step {response.step.index} of {response.step.of}")
            elif event == "image":
                with open(args.file, "wb") as file:
                    file.write(response.image.data)
                print(f"{args.file}: seed {response.image.seed}, sha256 {response.image.digest}")


if __name__ == "__main__":
    main()
