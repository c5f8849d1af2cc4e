"""From extreme points to a mask of one image."""
