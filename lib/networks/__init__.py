"""The 2.5D U-Net of the paper."""
