"""InExtremIS: segmentation models learnt from six extreme points a structure."""

__version__ = "0.2.0"
