"""InExtremIS: segmentation models learnt from six extreme points a structure."""
