"""A LitServe server of one ONNX model: ``serve_litserve.py MODEL PORT``.

Runs in an environment of its own.

The frame comes as base64 of its bytes, the most compact form that LitServe's JSON takes.
"""

import base64
import sys

import litserve
import numpy as np
import onnxruntime


class Api(litserve.LitAPI):
    """The model, on one thread as the others have it."""

    def setup(self, device: str) -> None:  # noqa: ARG002 - LitServe's signature
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(
            MODEL, options, providers=["CPUExecutionProvider"]
        )

    def decode_request(self, request: dict) -> np.ndarray:
        frame = np.frombuffer(base64.b64decode(request["image"]), dtype=np.uint8)
        return frame.reshape(1, 224, 224, 3)

    def predict(self, x: np.ndarray) -> np.ndarray:
        return self.session.run(None, {"image": x})[0]

    def encode_response(self, output: np.ndarray) -> dict:
        return {"scores": output[0].tolist()}


MODEL = sys.argv[1]

if __name__ == "__main__":
    server = litserve.LitServer(Api(), accelerator="cpu", workers_per_device=1)
    server.run(
        host="127.0.0.1", port=int(sys.argv[2]), generate_client_file=False, log_level="error"
    )
