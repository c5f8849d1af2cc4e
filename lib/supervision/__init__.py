"""Turn extreme points into annotated voxels: geodesics and label sets."""
