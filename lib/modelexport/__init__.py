"""Export trained networks as MONAI bundles, ONNX or TorchScript, with their provenance."""
