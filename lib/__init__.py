"""InExtremIS: segmentation models trained on six extreme points per structure."""

__version__ = "0.2.0"
