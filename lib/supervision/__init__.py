"""From extreme points to annotated voxels: boxes, geodesics, the partial label map."""
