"""Export a network as a single file that runs without its Python code: ONNX or TorchScript."""

from __future__ import annotations

import copy
import io
import json
import warnings

import numpy as np
import onnx
import onnxruntime
import torch
from torch import nn

from lib.modelexport.facts import ModelFacts
from lib.modelexport.stepwise_norms import with_stepwise_norms

LARGEST_DIFFERENCE = 1e-4
"""Maximum difference between the logits of an exported network, in 32 bits, and those of the network, in 64 bits."""

INPUT, OUTPUT = "image", "logits"
METADATA = "metadata.json"
"""Name of the facts in a TorchScript file, for MONAI's `load_net_with_metadata`."""

_OPSET = 17
_SEED = 0


class UnfaithfulExportError(ValueError):
    """Error of a network whose export is not the same function; its text is for the user."""


def onnx_file(facts: ModelFacts) -> bytes:
    """Export to ONNX: `image` (B, 1, X, Y, Z) to `logits` (B, 1 + C, X, Y, Z) float32, for windows of the model's size.

    The facts are JSON in its metadata, under `inextremis`.

    Raises:
        UnfaithfulExportError: the network cannot be exported, or the logits differ.
    """
    content, window, network = io.BytesIO(), _window(facts), facts.model.network.eval()
    axes = {name: {0: "batch"} for name in (INPUT, OUTPUT)}
    with warnings.catch_warnings():
        # The shape is fixed, so traced checks of it are harmless. The newer exporter does not support dynamic batches.
        warnings.simplefilter("ignore")
        try:
            torch.onnx.export(
                with_stepwise_norms(network),
                (window,),
                content,  # type: ignore[arg-type]
                dynamo=False,
                opset_version=_OPSET,
                input_names=[INPUT],
                output_names=[OUTPUT],
                dynamic_axes=axes,
            )
        except Exception as error:  # operators raise errors of any kind
            raise UnfaithfulExportError(_refusal(facts, "ONNX", error)) from error
    model = onnx.load_from_string(content.getvalue())
    onnx.helper.set_model_props(model, {"inextremis": json.dumps(facts.as_json(), ensure_ascii=False)})
    onnx.checker.check_model(model, full_check=True)
    file_content: bytes = model.SerializeToString()
    session = onnxruntime.InferenceSession(file_content, providers=["CPUExecutionProvider"])
    _require_same(session.run([OUTPUT], {INPUT: window.numpy()})[0], network, window, "ONNX")
    return file_content


def torchscript_file(facts: ModelFacts) -> bytes:
    """Export to TorchScript, as `onnx_file`; the facts are JSON in its extra file `metadata.json`.

    Raises:
        UnfaithfulExportError: the network cannot be exported, or the logits differ.
    """
    content, window, network = io.BytesIO(), _window(facts), facts.model.network.eval()
    with warnings.catch_warnings(), torch.inference_mode():
        warnings.simplefilter("ignore")
        try:
            traced = torch.jit.trace(network, window, check_trace=False)
            torch.jit.save(traced, content, {METADATA: json.dumps(facts.as_json(), ensure_ascii=False)})
            content.seek(0)
            found = torch.jit.load(content)(window)
        except Exception as error:  # operators raise errors of any kind
            raise UnfaithfulExportError(_refusal(facts, "TorchScript", error)) from error
    _require_same(found.numpy(), network, window, "TorchScript")
    return content.getvalue()


def _window(facts: ModelFacts) -> torch.Tensor:
    """Return noise (1, 1, X, Y, Z) with mean 0 and standard deviation 1, of the model's window size."""
    return torch.randn(1, 1, *facts.model.spec.roi_size, generator=torch.Generator().manual_seed(_SEED))


@torch.inference_mode()
def _require_same(found: np.ndarray, network: nn.Module, window: torch.Tensor, form: str) -> None:
    exact = copy.deepcopy(network).double()(window.double()).numpy()
    difference = float(np.abs(found - exact).max())
    if not difference <= LARGEST_DIFFERENCE:
        raise UnfaithfulExportError(
            f"The logits of the {form} file differ by {difference:.1e} from the network's, at most "
            f"{LARGEST_DIFFERENCE:.0e} is allowed; use --format bundle."
        )


def _refusal(facts: ModelFacts, form: str, error: Exception) -> str:
    lines = str(error).strip().splitlines()
    reason = lines[0][:200] if lines else type(error).__name__
    return f"The network {facts.model.spec.architecture} cannot be exported as {form} ({reason}); use --format bundle."
