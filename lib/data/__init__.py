"""TorchIO subjects, patch sampling and augmentation."""
