"""An MLServer runtime of one ONNX model, for ``mlserver start FOLDER``.

Runs in an environment of its own.

The frame comes as base64 of its bytes in a tensor of BYTES: MLServer's HTTP has no binary tensors,
and as JSON numbers the frame would have 600 kB.
"""

import base64

import numpy as np
import onnxruntime
from mlserver import MLModel
from mlserver.types import InferenceRequest, InferenceResponse, ResponseOutput


class Runtime(MLModel):
    """The model, on one thread as the others have it."""

    async def load(self) -> bool:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(
            self.settings.parameters.uri, options, providers=["CPUExecutionProvider"]
        )
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        frame = np.frombuffer(base64.b64decode(payload.inputs[0].data[0]), dtype=np.uint8)
        (scores,) = self.session.run(None, {"image": frame.reshape(1, 224, 224, 3)})
        output = ResponseOutput(
            name="scores", shape=list(scores.shape), datatype="FP32", data=scores[0].tolist()
        )
        return InferenceResponse(model_name=self.name, outputs=[output])
