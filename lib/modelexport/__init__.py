"""Trained networks that leave: MONAI bundles, ONNX, TorchScript, each with what it is made from."""
