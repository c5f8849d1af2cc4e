"""Compute losses of partial annotations: the partial segmentation loss and the CRF regularised loss."""
